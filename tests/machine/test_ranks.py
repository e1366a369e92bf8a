"""Communication between ranks before training, and the handling of missing, stopped and dead ranks."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest
from torch._C._distributed_c10d import HashStore, TCPStore

from gptexp.machine import rank_environment, rank_process, rank_store, ranks, slurm
from gptexp.machine.rank_process import RankProcess
from gptexp.runs import writing
from gptexp.runs.layout import CHECKPOINTS, LOCK
from gptexp.training import launch
from support.runs import TINY, command

WHOLE = {
    "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "a", "MASTER_PORT": "29500",
}  # fmt: skip


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> HashStore:
    """The store of a rank 0 of two, in this process."""
    made = HashStore()
    monkeypatch.setattr(ranks, "store", lambda: made)
    monkeypatch.setattr(ranks, "connected", [True])
    monkeypatch.setattr(ranks, "LINGER", 0.0)
    monkeypatch.setattr(ranks, "current", lambda: rank_environment.Rank(0, 2, 0, 2))
    return made


# ------------------------------------------------------------------------ launcher's variables


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"RANK": "abc"}, r"^RANK=abc: must be a whole number; .*unset RANK WORLD_SIZE"),
        ({"RANK": "4"}, r"^RANK=4: must be below WORLD_SIZE=4; "),
        ({"LOCAL_RANK": "2"}, r"^LOCAL_RANK=2: must be below LOCAL_WORLD_SIZE=2; "),
        ({"LOCAL_WORLD_SIZE": "3"}, r"^WORLD_SIZE=4: must be a multiple of LOCAL_WORLD_SIZE=3; "),
        ({"MASTER_PORT": "70000"}, r"^MASTER_PORT=70000: must be from 1 to 65535; "),
        ({"MASTER_ADDR": ""}, r"^RANK=1, .*: set, but MASTER_ADDR missing; if no launcher .*unset RANK .*torchrun"),
        ({"RANK": None}, r": set, but RANK missing; "),
        ({"LOCAL_RANK": None, "MASTER_PORT": None}, r": set, but LOCAL_RANK, MASTER_PORT missing; "),
    ],
)
def test_an_incomplete_set_of_launcher_variables_is_refused(change: dict[str, str | None], message: str) -> None:
    environment = {name: value for name, value in (WHOLE | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        rank_environment.require_whole(environment)


@pytest.mark.parametrize("leftover", [{"RANK": ""}, {"LOCAL_RANK": " ", "SLURM_PROCID": ""}, {"WORLD_SIZE": "1"}])
def test_empty_launcher_variables_count_as_unset(leftover: dict[str, str]) -> None:
    environment = dict(leftover)
    rank_environment.require_whole(environment)
    assert "" not in {value.strip() for value in environment.values()}
    assert rank_environment.current(environment) is None
    rank_environment.require_whole(WHOLE)
    assert rank_environment.current(WHOLE) == rank_environment.Rank(1, 4, 1, 2)


@pytest.mark.parametrize("sweep", [[], ["-m", "seed=1,2"]])
def test_a_leftover_launcher_variable_gives_a_one_line_error(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, sweep: list[str]
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    done = command("train", *sweep, *TINY, "data.path=story.txt", cwd=workplace)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: RANK=0, WORLD_SIZE=4: set, but LOCAL_RANK, ")


def test_a_sweep_under_torchrun_is_refused_in_one_line(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (WHOLE | {"RANK": "0", "LOCAL_RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    done = command("train", "-m", *TINY, "data.path=story.txt", "seed=1,2", cwd=workplace)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: -m: a sweep starts the ranks of its jobs")


SRUN = {
    "SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "4", "SLURM_NNODES": "1", "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0", "MASTER_ADDR": "node07",
}  # fmt: skip


def test_an_interactive_slurm_shell_is_not_a_rank() -> None:
    for interactive, step, expected in ((False, "0", True), (True, "0", False), (False, str(0xFFFFFFFA), False)):
        environment = SRUN | {"SLURM_STEP_ID": step}
        slurm.adopt(environment, interactive=interactive)
        assert (rank_environment.current(environment) is not None) == expected


@pytest.mark.parametrize(("name", "value"), [("SLURM_PROCID", ""), ("SLURM_LOCALID", "x"), ("SLURM_STEP_ID", "x")])
def test_an_incomplete_set_of_slurm_variables_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}.*unset SLURM_STEP_ID$"):
        slurm.adopt(SRUN | {name: value}, interactive=False)


# ------------------------------------------------------------------------------- the store


@pytest.mark.parametrize("fact", ["data fingerprint", "version of torch"])
def test_ranks_with_different_inputs_are_refused_by_name(store: HashStore, fact: str) -> None:
    facts = {"data fingerprint": "aa", "version of torch": "2.13.0"}
    store.set("facts/1", json.dumps(facts | {fact: "other"}))
    with pytest.raises(ValueError, match=rf"^rank 1: its {fact} is other, but rank 0 has {facts[fact]}; all ranks"):
        ranks.require_alike(facts)
    assert not store.check([ranks.ALIKE])
    store.set("facts/1", json.dumps(facts))
    ranks.require_alike(facts)
    assert store.check([ranks.ALIKE])


def test_a_waiting_rank_names_the_missing_ranks_and_times_out(
    store: HashStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rank_store, "NOTICE", 0.01)
    monkeypatch.setattr(ranks, "START_TIMEOUT", timedelta(seconds=0.1))
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"^rank 0 has not heard from rank 1 in 0 minutes at a:29500; if no launcher"):
        ranks.connect()
    assert capsys.readouterr().err.startswith("notice: rank 0 waits for rank 1 at a:29500; if no launcher started")


def test_a_waiting_rank_ends_if_another_rank_fails(store: HashStore) -> None:
    with pytest.raises(SystemExit) as stop, ranks.notify_on_failure():
        sys.exit(2)
    assert stop.value.code == 2
    with pytest.raises(SystemExit) as stop:
        ranks.receive("what never comes", timeout=ranks.NO_LIMIT)
    assert stop.value.code == 2


def test_ctrl_c_ends_a_waiting_rank(store: HashStore) -> None:
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        ranks.receive("what never comes", timeout=ranks.NO_LIMIT)


def test_a_busy_master_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        for address in ("127.0.0.1", "another.host"):
            with pytest.raises(ValueError, match=f"^MASTER_PORT={port}: in use on this machine; set another port"):
                rank_store._listen(address, port)


def test_ranks_that_are_started_again_do_not_share_the_store_of_their_predecessors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torchrun's agent keeps its store over restarts, and agents of several nodes may count them differently."""
    for name in ("MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.setenv(name, "")
    agents = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ranks_of_two = [rank_environment.Rank(rank, 2, 0, 1) for rank in (0, 1)]
    assert rank_store._joined(ranks_of_two[1], "127.0.0.1", agents) is None  # rank 0 has not started
    first = rank_store._store_of_this_start(ranks_of_two[0], "127.0.0.1", agents)
    assert (os.environ["MASTER_PORT"], os.environ["TORCHELASTIC_USE_AGENT_STORE"]) == (str(first.port), "False")
    first.set("address", "of the first start")
    assert rank_store._joined(ranks_of_two[1], "127.0.0.1", agents).get("address") == b"of the first start"
    assert rank_store._joined(ranks_of_two[1], "127.0.0.1", agents) is None  # rank 0 is about to fail
    second = rank_store._store_of_this_start(ranks_of_two[0], "127.0.0.1", agents)
    joined = rank_store._store_of_this_start(ranks_of_two[1], "127.0.0.1", agents)
    assert (joined.port, joined.check(["address"])) == (second.port, False)


def test_a_rank_does_not_wait_for_a_store_that_ends_while_it_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store of a rank 0 that is about to fail may answer once; torch's client would try again for ten minutes."""
    monkeypatch.setattr(rank_store, "ANSWER_TIMEOUT", timedelta(seconds=0.5))
    agents = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ending = socket.create_server(("127.0.0.1", 0))
    agents.set(rank_store.ANNOUNCED, str(ending.getsockname()[1]))

    def answer_once() -> None:
        ending.accept()[0].close()
        ending.close()

    thread = threading.Thread(target=answer_once)
    thread.start()
    assert rank_store._joined(rank_environment.Rank(1, 2, 0, 1), "127.0.0.1", agents) is None
    thread.join()


def test_the_store_of_gptexps_launcher_listens_only_on_loopback() -> None:
    store, port = launch._serve()
    listening = [c.laddr for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert [address.ip for address in listening if address.port == port] == ["127.0.0.1"]
    store.set("key", "value")
    assert launch._loopback() == {} or psutil.net_if_addrs()[launch._loopback()["GLOO_SOCKET_IFNAME"]]


# ---------------------------------------------------------------------- processes of the ranks


def started(*sources: str) -> list[RankProcess]:
    """Processes that replace ranks, each with its Python code."""
    options = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    spawned = [subprocess.Popen([sys.executable, "-S", "-c", source], **options) for source in sources]  # type: ignore[call-overload]
    return [RankProcess(rank, process) for rank, process in enumerate(spawned)]


def ended(children: list[RankProcess], received: launch._Received | None = None) -> list[RankProcess]:
    launch._wait(children, received or launch._Received())
    for child in children:
        child.end()
    return children


SLEEPS = "import time; time.sleep(100)"


@pytest.mark.parametrize(
    ("limit", "code", "why"), [("LEAVING", 130, "another rank had left"), ("FINISHING", 0, "another rank had finished")]
)
def test_ranks_have_limited_time_after_one_of_them_ends(
    monkeypatch: pytest.MonkeyPatch, limit: str, code: int, why: str
) -> None:
    monkeypatch.setattr(launch, limit, 0.05)
    children = ended(started(f"raise SystemExit({code})", SLEEPS))
    with pytest.raises(ValueError, match=rf"^rank 1 had not ended 0 seconds after {why} and was killed"):
        launch._raise_failure(children, [signal.SIGINT])


def test_a_stopped_rank_is_named_and_the_wait_is_limited(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "LOOK", 0.0)
    monkeypatch.setattr(launch, "FROZEN", 0.1)
    monkeypatch.setattr(rank_process, "NOTICE", 0.01)
    children = started(SLEEPS, SLEEPS)
    children[1].process.send_signal(signal.SIGSTOP)
    ended(children)
    assert capsys.readouterr().err.startswith("notice: rank 1 is stopped and the others wait for it; `kill -CONT ")
    with pytest.raises(ValueError, match=r"^rank 1 had not ended 0 seconds after it was stopped \(SIGSTOP\)"):
        launch._raise_failure(children, [])


def test_a_signal_reaches_a_stopped_rank_and_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = (
        "import signal, sys, time; signal.signal(15, signal.SIG_IGN); print(file=sys.stderr, flush=True); time.sleep(9)"
    )
    children = started(SLEEPS, deaf)
    while not children[1]._last_output:
        pass
    children[0].process.send_signal(signal.SIGSTOP)
    with launch._forwarding(children) as received:
        signal.raise_signal(signal.SIGTERM)
    monkeypatch.setattr(launch, "STOPPING", 0.2)
    monkeypatch.setattr(launch, "GRACE", 100)
    ended(children, received)
    assert children[0].code == -signal.SIGTERM
    with pytest.raises(ValueError, match=r"^rank 1 had not ended 0 seconds after SIGTERM was forwarded to it"):
        launch._raise_failure(children, received.signums)


def test_the_rank_with_a_reason_is_reported_not_the_first_to_end() -> None:
    reported = "import time; time.sleep(0.2); raise SystemExit('error: the reason')"
    children = ended(started("raise SystemExit(2)", reported))
    with pytest.raises(ValueError, match=r"^rank 1: the reason$"):
        launch._raise_failure(children, [])


def test_the_error_of_a_rank_that_has_ended_is_kept_while_others_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "LOOK", 0.0)
    monkeypatch.setattr(launch, "GRACE", 1.5)
    monkeypatch.setattr(rank_process, "NOTICE", 0.5)
    children = ended(started("raise SystemExit('error: the reason')", SLEEPS))
    with pytest.raises(ValueError, match=r"^the reason$"):
        launch._raise_failure(children, [])
    assert "the reason" not in capsys.readouterr().err


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_line_like_a_traceback_does_not_silence_a_rank(
    goes_on: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "LOOK", 0.0)
    monkeypatch.setattr(rank_process, "NOTICE", 0.05 if goes_on else 100.0)
    reported = "import sys; print('Traceback (most recent call last):\\nlater', file=sys.stderr, flush=True)"
    children = started(f"{reported}; sys.stdin.read()" if goes_on else reported)
    if goes_on:
        threading.Timer(0.5, lambda: children[0].withheld or children[0].process.stdin.close()).start()  # type: ignore[union-attr]
    monkeypatch.setattr(launch, "FROZEN", 100.0)
    ended(children)
    assert capsys.readouterr().err == "Traceback (most recent call last):\nlater\n"
    launch._raise_failure(children, [])


def test_lost_standard_error_does_not_stop_reading_from_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Mock(writelines=Mock(side_effect=BrokenPipeError)))
    assert ended(started("import sys; print('x' * 1000000, file=sys.stderr)"))[0].code == 0


def test_no_rank_exits_before_the_bundle_is_written(
    store: HashStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from gptexp.training.callbacks import bundle
    from gptexp.training.module import LitGPT
    from gptexp.training.nonfinite import NonFiniteLoss

    monkeypatch.setattr(ranks, "current", lambda: rank_environment.Rank(1, 2, 1, 2))
    monkeypatch.setattr(bundle, "model_tensors", lambda model: {})
    written: list[bool] = []

    def write() -> None:
        written.append(True)
        store.set("bundle of step 3", "true")

    threading.Timer(0.1, write).start()
    error = NonFiniteLoss("train/loss is nan", 3, before_update=True)
    bundle.Bundle(tmp_path, {}, Mock()).on_exception(Mock(is_global_zero=False), Mock(spec=LitGPT, model=None), error)
    assert written


# ------------------------------------------------------------------------------ run folders


def test_a_lock_on_a_removed_file_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that ends can remove the file after it is opened and before it is locked here."""
    from filelock import FileLock, Timeout

    folder, acquire, calls = tmp_path / "run", FileLock.acquire, list[int]()

    def late(self: FileLock, timeout: float = -1) -> object:
        got = acquire(self, timeout=timeout)
        calls.append(1)
        if len(calls) == 1:
            (folder / LOCK).unlink()
            (folder / LOCK).touch()
        return got

    monkeypatch.setattr(FileLock, "acquire", late)
    with writing.claim_run_folder(folder, resumes=None), pytest.raises(Timeout):
        acquire(FileLock(folder / LOCK), timeout=0)
    assert not folder.exists()


def test_start_up_removes_partial_files_of_a_killed_process(tmp_path: Path) -> None:
    kept = tmp_path / "samples.md"
    kept.touch()
    (tmp_path / CHECKPOINTS).mkdir()
    for leftover in (tmp_path / ".nonfinite-step-2.pt.0123.tmp", tmp_path / CHECKPOINTS / ".last.ckpt.0123.tmp"):
        leftover.touch()
    with writing.claim_run_folder(tmp_path, resumes=None):
        assert list(tmp_path.rglob("*.tmp")) == []
    assert kept.exists()


def test_ranks_receive_their_settings_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    from gptexp.training import worker

    spawned: list[list[str]] = []
    popen: Callable[..., object] = subprocess.Popen

    def cat(line: list[str], **options: object) -> object:
        spawned.append([*line, *map(str, options["env"].values())])  # type: ignore[attr-defined]
        return popen(["cat"], stdout=subprocess.PIPE, **options)

    monkeypatch.setattr(subprocess, "Popen", cat)
    process = launch._spawn(1, 2, 29500, json.dumps({"folder": "the folder", "config": {"seed": 7}, "steps": 3}))
    assert not any("the folder" in word for word in spawned[0])
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    line = process.stdout.buffer.read()  # type: ignore[attr-defined]
    process.wait()
    monkeypatch.setattr(os, "read", lambda descriptor, size: line)
    assert worker._read_composition() == {"folder": "the folder", "config": {"seed": 7}, "steps": 3}


def test_ranks_that_lost_contact_name_the_missing_rank(store: HashStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "ROLL_CALL", 0.1)
    monkeypatch.setattr(ranks, "current", lambda: rank_environment.Rank(0, 4, 0, 4))
    store.set("alive/2", "true")
    broken = RuntimeError("[/gloo/transport/tcp/pair.cc:553] Connection closed by peer\nmore")
    reported = ranks.lost_contact(broken)
    assert reported is not None
    assert reported.startswith("ranks 1, 3 ended or did not respond ([/gloo/transport/tcp/pair.cc:553] Connection cl")
    assert ranks.lost_contact(RuntimeError("shapes do not fit")) is None


def test_a_dead_rank_is_reported_before_those_that_lost_contact() -> None:
    echo = f"raise SystemExit('error: rank 1 {ranks.LOST} (gloo); see its output')"
    children = ended(started(echo, "import os, time; time.sleep(0.2); os.kill(os.getpid(), 9)"))
    with pytest.raises(ValueError, match=r"^rank 1 was ended by SIGKILL"):
        launch._raise_failure(children, [])
