"""Several processes, nodes and jobs: start, supervision, and the death of one of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from gptexp.machine.rank_process import RankProcess
from gptexp.runs.opening import load
from support.runs import TINY, TINY_GPT, command, processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SETTINGS = [*TINY, *TINY_GPT, "data.path=story.txt", "trainer.max_steps=4", "name=x"]
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
LONG = ["trainer.max_steps=100000", "trainer.val_every_steps=100000"]


def result(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return content


def ranks_of(parent: int) -> list[psutil.Process]:
    """The rank processes below a process, in the order of their ranks."""
    below = psutil.Process(parent).children(recursive=True)
    return sorted(
        (p for p in processes("gptexp.training.worker") if p in below), key=lambda p: int(p.info["environ"]["RANK"])
    )


WITNESS = """
import os

class Witness:
    def __init__(self):
        self.file = os.open("PATH", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.line = os.environ.get("RANK", "none").encode() + b" "

    def __del__(self, write=os.write):
        write(self.file, self.line)

witness = Witness()
"""


@pytest.fixture
def taken_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the rank, or "none", of every process whose interpreter was finalized."""
    path = tmp_path / "taken_down.txt"
    (tmp_path / "customize").mkdir()
    (tmp_path / "customize/sitecustomize.py").write_text(WITNESS.replace("PATH", str(path)), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "customize"))
    return path


@pytest.mark.parametrize(
    ("ending", "code"), [("", 0), ("sys.exit(2)", 2), ("sys.exit('no')", 1), ("sys.exit()", 0), ("1 / 0", 1)]
)
def test_a_rank_runs_its_exit_functions_before_it_ends(taken_down: Path, ending: str, code: int) -> None:
    """gloo's threads abort a process that finalizes its interpreter while they run, after its work is done."""
    work = f"import atexit, sys\natexit.register(print, 'exit function')\n{ending}"
    wrapped = f"from gptexp.machine import ranks\nwith ranks.exit_without_finalization():\n    exec({work!r})"
    plain, rank = (
        subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, env={**os.environ, "RANK": name})
        for source, name in ((work, "plain"), (wrapped, "rank"))
    )
    assert (plain.returncode, plain.stdout) == (rank.returncode, rank.stdout) == (code, "exit function\n")
    assert ("ZeroDivisionError" in rank.stderr) == ("ZeroDivisionError" in plain.stderr)
    assert taken_down.read_text().split() == ["plain"]


PATIENT = "from gptexp.training import launch\nlaunch.GRACE = 1000.0\nfrom gptexp.train import main\nmain()"


def test_an_error_of_a_rank_is_one_line_and_ends_the_others(workplace: Path, taken_down: Path) -> None:
    """The launcher here waits so long for the other ranks that they must end by themselves."""
    settings = [*SETTINGS, *TWO, "model.block_size=9999", "hydra.run.dir=x"]
    done = subprocess.run([sys.executable, "-c", PATIENT, *settings], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert not {"0", "1"} & set(taken_down.read_text().split())
    assert [line for line in done.stderr.splitlines() if not line.startswith("preparing")] == [
        "error: data=text: the training part has 5724 tokens, but model.block_size=9999 needs at least 10000; "
        "give more text or a smaller model.block_size"
    ]


def test_a_sweep_of_ddp_jobs_has_one_folder_per_job_and_ends_cleanly(workplace: Path) -> None:
    done = command("train", "-m", *SETTINGS, *TWO, "model.n_layer=1,2,3", "hydra.sweep.dir=sweep", cwd=workplace)
    assert done.returncode == 0, done.stderr
    folders = sorted(path.parent for path in workplace.rglob("config.yaml"))
    assert [folder.name for folder in folders] == ["n_layer=1", "n_layer=2", "n_layer=3"]
    layers = [yaml.safe_load((folder / "config.yaml").read_text())["model"]["n_layer"] for folder in folders]
    assert layers == [1, 2, 3]
    assert [result(folder)["status"] for folder in folders] == ["completed"] * 3
    assert len({result(folder)["parameters"] for folder in folders}) == 3
    assert not [p for p in processes("gptexp.training.worker") if p.info["cwd"] == str(workplace)]


@pytest.fixture
def running(workplace: Path) -> Iterator[subprocess.Popen[str]]:
    """A run of two ranks that has started to train, in ./run."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gptexp.train", *SETTINGS, *TWO, *LONG, "hydra.run.dir=run"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics, deadline = workplace / "run/metrics.csv", time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") > 3):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield process
    process.kill()
    process.communicate()


def test_a_dead_rank_ends_the_others_and_is_named(running: subprocess.Popen[str]) -> None:
    ranks = ranks_of(running.pid)
    assert len(ranks) == 2
    sockets = [socket for p in (psutil.Process(running.pid), *ranks) for socket in p.net_connections("tcp")]
    assert {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
    ranks[1].send_signal(signal.SIGKILL)
    _, reported = running.communicate(timeout=60)
    assert running.returncode == 2
    errors = [line for line in reported.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: rank 1 was ended by SIGKILL (the system may have run out of memory); the other ranks were stopped"
    ]
    assert not [rank for rank in ranks if rank.is_running()]


def test_the_message_of_a_library_that_aborts_a_rank_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    from gptexp.training import launch

    reported = "import os, sys; print('terminate called\\n', file=sys.stderr, flush=True); os.abort()"
    spawned = [
        subprocess.Popen([sys.executable, "-c", source], stderr=subprocess.PIPE, text=True)
        for source in ("import time; time.sleep(60)", reported)
    ]
    monkeypatch.setattr(launch, "GRACE", 0.1)
    children = [RankProcess(rank, process) for rank, process in enumerate(spawned)]
    launch._wait(children, launch._Received())
    children[0].end()
    with pytest.raises(ValueError, match=r"^rank 1 was ended by SIGABRT \(its last line: terminate called\); the"):
        launch._raise_failure(children, [])


def test_ranks_end_with_the_process_that_started_them(running: subprocess.Popen[str]) -> None:
    ranks = ranks_of(running.pid)
    running.kill()
    assert not psutil.wait_procs(ranks, timeout=30)[1]


def test_a_signal_to_the_supervisor_ends_all_ranks_after_the_same_step(
    running: subprocess.Popen[str], workplace: Path
) -> None:
    ranks_of(running.pid)[1].suspend()  # which the signal ends
    running.send_signal(signal.SIGTERM)
    _, reported = running.communicate(timeout=60)
    assert running.returncode == 143
    step = result(workplace / "run")["steps"]
    assert reported.splitlines()[-1] == f"interrupted by SIGTERM after step {step}; continue with resume=run"
    done = command("train", "resume=run", f"trainer.max_steps={int(str(step)) + 2}", "trainer=cpu", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert f"resuming from step {step}" in done.stdout


@dataclass
class Node:
    """How a command is run on a node, and where the other finds it."""

    prefix: list[str]
    address: str
    interface: str


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    """Two connected network namespaces, or this machine twice if namespaces cannot be created."""
    names, links = [f"gptexp{os.getpid()}n{i}" for i in (0, 1)], [f"gx{os.getpid() % 100000}n{i}" for i in (0, 1)]
    addresses = ["10.231.77.1", "10.231.77.2"]
    commands = [f"netns add {name}" for name in names]
    commands.append(f"link add {links[0]} type veth peer name {links[1]}")
    for name, link, address in zip(names, links, addresses, strict=True):
        commands.append(f"link set {link} netns {name}")
        commands += [f"-n {name} addr add {address}/24 dev {link}", f"-n {name} link set {link} up"]
        commands.append(f"-n {name} link set lo up")
    try:
        for line in commands:
            subprocess.run(["ip", *line.split()], check=True, capture_output=True)
        yield [
            Node(["ip", "netns", "exec", name], address, link)
            for name, link, address in zip(names, links, addresses, strict=True)
        ]
    except (OSError, subprocess.CalledProcessError):
        yield [Node([], "127.0.0.1", "lo")] * 2
    finally:
        for name in names:
            with suppress(FileNotFoundError):  # the command ip may be missing
                left = subprocess.run(["ip", "netns", "pids", name], check=False, capture_output=True, text=True)
                for pid in left.stdout.split():  # after a failed test
                    os.kill(int(pid), signal.SIGKILL)
                subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def torchrun(nodes: list[Node], i: int, port: int, *arguments: str) -> subprocess.Popen[str]:
    """torchrun on one of two nodes, with a rank. arguments: of torchrun, then `-m gptexp.train` and its own."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={i}", "--nproc-per-node=1"]
    launcher += [f"--master-addr={nodes[0].address}", f"--master-port={port}"]
    return subprocess.Popen(
        [*nodes[i].prefix, *launcher, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "GLOO_SOCKET_IFNAME": nodes[i].interface},
    )


def test_two_nodes_train_like_one_process(workplace: Path, nodes: list[Node], taken_down: Path) -> None:
    port = free_port()
    train = ["-m", "gptexp.train", *SETTINGS, "trainer.accelerator=cpu", "trainer.precision=64-true"]
    started = [torchrun(nodes, i, port, *train, "hydra.run.dir=nodes") for i in (0, 1)]
    reported = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], reported
    assert not {"0", "1"} & set(taken_down.read_text().split())
    assert "2 processes" in reported[0]
    assert "val/bpb" not in reported[1]  # only rank 0 prints
    done = command("train", *SETTINGS, "trainer=cpu", "trainer.precision=64-true", "hydra.run.dir=one", cwd=workplace)
    assert done.returncode == 0, done.stderr
    one, two = (result(workplace / name)["metrics"] for name in ("one", "nodes"))
    assert two == pytest.approx(one, rel=1e-9)


def test_a_killed_rank_and_a_killed_node_leave_the_weights_unchanged(workplace: Path, nodes: list[Node]) -> None:
    """The node returns as after a reboot: what starts torchrun there starts it again."""
    port, folder = free_port(), workplace / "logs/runs/x/auto"
    length = ["trainer.max_steps=300", "trainer.val_every_steps=100", "callbacks.checkpoint.every_steps=10"]
    settings = [*SETTINGS, *length, "model.dropout=0.1", "trainer.accelerator=cpu"]
    line = ["--max-restarts=3", "-m", "gptexp.train", *settings, "resume=auto"]
    started = [torchrun(nodes, i, port, *line) for i in (0, 1)]

    def rank_of(process: subprocess.Popen[str]) -> psutil.Process:
        below = psutil.Process(process.pid).children(recursive=True)
        return next(p for p in below if p.environ().get("RANK") and "gptexp.train" in p.cmdline())

    def reached(step: int) -> None:
        deadline = time.monotonic() + 150
        while not (folder / "checkpoints/last.ckpt").exists() or load(folder / "checkpoints/last.ckpt").step < step:
            assert [process.poll() for process in started] == [None, None]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    reached(20)
    rank_of(started[1]).kill()
    reached(100)
    lost = [psutil.Process(started[1].pid), *psutil.Process(started[1].pid).children(recursive=True)]
    for process in lost:
        process.kill()
    psutil.wait_procs(lost[1:], timeout=30)
    started[1].communicate()
    started[1] = torchrun(nodes, 1, port, *line)
    reported = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], reported
    assert reported[0].count("resuming from step") == 2
    done = command("train", *settings, *TWO, "hydra.run.dir=undisturbed", cwd=workplace, quick=True)
    assert done.returncode == 0, done.stderr
    for name in ("last.ckpt", "best.ckpt"):
        found, expected = (load(place / "checkpoints" / name) for place in (folder, workplace / "undisturbed"))
        assert found.step == expected.step
        assert found.model.keys() == expected.model.keys()
        assert all(found.model[key].equal(expected.model[key]) for key in expected.model)


def by_hand(place: Path, rank: int, port: int, *settings: str) -> subprocess.Popen[str]:
    """One of two ranks, started like those of torchrun and srun, in a separate folder."""
    who = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1"}
    environment = {**os.environ, **{name: str(value) for name, value in who.items()}, "MASTER_PORT": str(port)}
    train = [sys.executable, "-m", "gptexp.train", *SETTINGS, "trainer=ddp", "trainer.accelerator=cpu", *settings]
    return subprocess.Popen(
        train, cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_ranks_of_another_launcher_compare_what_they_read(workplace: Path) -> None:
    places, port = [workplace / "0", workplace / "1"], free_port()
    for place in places:
        place.mkdir()
        (place / "story.txt").write_text(
            (workplace / "story.txt").read_text("utf-8").replace("cat", place.name), "utf-8"
        )
    started = [by_hand(place, rank, port, f"hydra.run.dir={workplace}/run") for rank, place in enumerate(places)]
    reported = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [2, 2]
    errors = [[line for line in text.splitlines() if not line.startswith("preparing")] for text in reported]
    assert [len(lines) for lines in errors] == [1, 0], reported  # one line, of rank 0
    assert errors[0][0].startswith("error: rank 1: its data fingerprint is ")
    assert not (workplace / "run").exists()


def test_a_rank_of_another_launcher_names_the_one_that_died(workplace: Path) -> None:
    port = free_port()
    started = [by_hand(workplace, rank, port, *LONG, "hydra.run.dir=run") for rank in (0, 1)]
    metrics, deadline = workplace / "run/metrics.csv", time.monotonic() + 120
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    started[1].kill()
    reported, _ = (process.communicate(timeout=120)[1] for process in started)
    assert started[0].returncode == 2
    assert reported.splitlines()[-1].startswith("error: rank 1 ended or did not respond (")
    assert "Traceback" not in reported
