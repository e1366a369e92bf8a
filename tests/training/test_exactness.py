"""Determinism: a run that is stopped, moved or distributed keeps its curve."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gptexp.compose.composition import compose
from gptexp.machine import slurm
from gptexp.machine.rank_environment import Rank, current
from gptexp.runs import checkpoint as ckpt
from gptexp.runs.finding import find_checkpoint
from gptexp.runs.opening import load
from gptexp.training.callbacks.checkpoints import Signals
from gptexp.training.callbacks.trace import read_trace
from gptexp.util.errors import ConfigError
from support.runs import TINY, TINY_GPT, command

Train = Callable[..., dict[str, Any]]

TRACE = "+callbacks.plugins.trace={_target_: gptexp.training.callbacks.trace.Trace}"
TWO = ["trainer.accelerator=cpu", "trainer.devices=2"]
NORMS = ["trainer.log_norms=true", "callbacks.attention_entropy=true"]
RECOMPUTE = "trainer.recompute=blocks"
ASYNCHRONOUS = ["callbacks.checkpoint.asynchronous=true", "callbacks.checkpoint.every_steps=2"]
COMPILES = pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with g++")
MUON_OPTIONS = ["optimizer.split_qkv=true", "optimizer.normuon=true"]
MOST = ["model.dropout=0.1", "trainer=fsdp", "optimizer=muon", *MUON_OPTIONS, RECOMPUTE, *NORMS, *ASYNCHRONOUS]


def windows_by_step(folder: Path) -> dict[int, list[str]]:
    """The hashes of all windows of each step, over ranks and micro-batches, sorted."""
    found: dict[int, list[str]] = defaultdict(list)
    for (_, step, _), rows in read_trace(folder).items():
        (row,) = rows
        found[step] += row[0].split()
    return {step: sorted(windows) for step, windows in found.items()}


def train_losses(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) for name in ("train/loss", "val/loss") if row[name]]


# ------------------------------------------------------------------------------ stopping and resuming


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "settings",
    [
        ["model.dropout=0.1", "data.num_workers=2"],
        ["model.dropout=0.1", "data.micro_batch_size=2", "optimizer=muon", "trainer.precision=64-true"],
        ["model.dropout=0.1", "trainer=ddp", *ASYNCHRONOUS, *NORMS, *TWO],
        pytest.param(["model.dropout=0.1", "trainer=fsdp", *ASYNCHRONOUS, *TWO], marks=pytest.mark.weekly),
        [*MOST, *TWO],
        pytest.param(["model.dropout=0.1", "trainer.compile=true"], marks=[pytest.mark.weekly, COMPILES]),
    ],
    ids=" ".join,
)
def test_verify_resume_shows_bitwise_equality(workplace: Path, settings: list[str]) -> None:
    done = command(
        "verify_resume", *TINY[:4], *TINY_GPT, "trainer=cpu", "data.path=story.txt", *settings, "--steps", "12",
        "--kill-at", "8", "trainer.val_every_steps=3", cwd=workplace, quick="trainer.compile=true" not in settings,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "bitwise equal"
    assert list((workplace / "logs/verify").iterdir()) == []


def test_verify_resume_names_the_first_difference(train_here: Train, workplace: Path) -> None:
    """Broken intentionally: the second run has another seed and one additional step."""
    from gptexp.commands.verify_resume import _checkpoints, _curves, _first, _logged, _traced

    train_here(*TINY_GPT, TRACE, "trainer.max_steps=3", folder="a")
    train_here(*TINY_GPT, TRACE, "trainer.max_steps=4", "seed=2", folder="b")
    a, b = Path("a"), Path("b")
    assert _first("x", _traced(a, 4), _traced(a, 4)).difference is None
    assert _first("x", _logged(a), _logged(a)).difference is None
    difference = _first("batches", _traced(a, 4), _traced(b, 4)).difference
    assert difference is not None
    assert difference.startswith("step 000001 rank 0 micro-batch 0: ")
    assert str(_first("logged", _logged(a), _logged(b)).difference).startswith("row 000000 grad_norm: ")
    assert str(_first("curves", _curves(a), _curves(b)).difference).startswith("grad_norm point 000000: (1, ")
    assert all(c.difference for c in _checkpoints(a, b))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kill-at", "40"], "--kill-at=40: must be from 1 to below --steps=40"),
        (["--stps", "3"], "--stps: neither an option (see --help) nor key=value"),
        (["resume=x"], "resume: is set by this command"),
        (["model.n_lyer=3"], "model.n_lyer=3: no such setting; did you mean model.n_layer?"),
    ],
)
def test_verify_resume_refuses_a_wrong_command_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from gptexp.verify_resume import main

    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_verify_resume_accepts_names_that_hydra_would_not_parse(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from gptexp.commands import verify_resume
    from gptexp.verify_resume import main

    given: list[str] = []
    config = SimpleNamespace(init_from="runs/a", paths=SimpleNamespace(logs=str(tmp_path)))
    monkeypatch.setattr(verify_resume, "_checked", lambda *_: config)

    def record(steps: int, kill_at: int, overrides: list[str], place: Path) -> list[verify_resume.Comparison]:
        given.extend(overrides)
        return []

    monkeypatch.setattr(verify_resume, "verify", record)
    main(["init_from=latest", "data.path=books[1].txt"])
    assert given == ["data.path=books[1].txt", "init_from='runs/a'"]


def started(place: Path, *overrides: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """A training process of the tiny model that has run a few steps of many."""
    settings = [*TINY, *TINY_GPT, "data.path=story.txt", "trainer.max_steps=100000", "trainer.val_every_steps=100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gptexp.train", *settings, *overrides],
        cwd=place,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    deadline = time.monotonic() + 100
    while not any(rows(path) > 3 for path in place.rglob("metrics.csv")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def rows(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_step_saves_and_prints_how_to_resume(
    workplace: Path, quick_ranks: None, signum: int, code: int
) -> None:
    process = started(workplace, "hydra.run.dir=run")
    process.send_signal(signum)
    _, reported = process.communicate(timeout=60)
    assert process.returncode == code
    result = json.loads((workplace / "run/result.json").read_text(encoding="utf-8"))
    step = load(workplace / "run/checkpoints/last.ckpt").step
    assert result == {"schema": 1, "status": "interrupted", "signal": signal.Signals(signum).name, "steps": step}
    assert reported.splitlines()[-1] == (
        f"interrupted by {signal.Signals(signum).name} after step {step}; continue with resume=run"
    )
    assert rows(workplace / "run/metrics.csv") == step + 1  # the header, and every step


def test_a_second_interrupt_quits_at_once() -> None:
    child = os.fork()
    if not child:
        signals = Signals()
        signals.catch(quietly=True)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)  # after another signal it is the first
        os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130


def test_slurm_preemption_saves_and_requeues_and_the_job_resumes(workplace: Path, quick_ranks: None) -> None:
    fake = workplace / "bin/scontrol"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "$@" > requeued\n')
    fake.chmod(fake.stat().st_mode | stat.S_IEXEC)
    env = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "1", "PATH": f"{fake.parent}:{os.environ['PATH']}"}
    process = started(workplace, "resume=auto", env=env)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGUSR1
    assert (workplace / "requeued").read_text().split() == ["requeue", "77"]
    step = load(workplace / "logs/runs/slurm-77/auto/checkpoints/last.ckpt").step
    settings = [
        *TINY,
        *TINY_GPT,
        "data.path=story.txt",
        f"trainer.max_steps={step + 2}",
        "trainer.val_every_steps=100000",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "gptexp.train", *settings, "resume=auto"],
        capture_output=True, text=True, check=False, env={**os.environ, **env},
    )  # fmt: skip
    assert f"resuming from step {step}" in done.stdout, done.stderr
    assert rows(workplace / "logs/runs/slurm-77/auto/metrics.csv") == step + 3


def test_resume_auto_starts_resumes_and_refuses_a_complete_run(train_here: Train, workplace: Path) -> None:
    def auto(*overrides: str) -> Any:
        return compose([*TINY, *TINY_GPT, "data.path=story.txt", "resume=auto", "name=mine", *overrides])

    assert auto().resume is None
    train_here(*TINY_GPT, "trainer.max_steps=4", "name=mine", folder="logs/runs/mine/auto")
    with pytest.raises(ConfigError, match="contains a finished run, which is never overwritten"):
        auto()
    (workplace / "logs/runs/mine/auto/result.json").write_text('{"status": "interrupted"}')
    assert find_checkpoint(str(auto("trainer.max_steps=4").resume)).parts[:4] == ("logs", "runs", "mine", "auto")
    with pytest.raises(ConfigError, match=r"resume=auto: requires name=…"):
        compose(["resume=auto"])
    with pytest.raises(ConfigError, match="must be a valid folder name"):
        compose(["resume=auto", "name=../up"])


def test_every_logged_step_is_on_disk_before_its_checkpoint(
    train_here: Train, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill directly after a save, the curve must be complete up to that step."""
    seen = []

    def rotate(state: ckpt.Checkpoint, folder: Path, *, best: bool, also: object) -> None:
        seen.append((state.step, rows(workplace / "run/metrics.csv") - 1))

    monkeypatch.setattr(ckpt, "rotate", rotate)
    train_here(*TINY_GPT, "trainer.max_steps=5", "callbacks.checkpoint.every_steps=1", "trainer.val_every_steps=3")
    assert seen == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]


def test_a_run_killed_during_its_first_checkpoint_restarts(train_here: Train, workplace: Path) -> None:
    folder = workplace / "logs/runs/mine/auto"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints/.last.ckpt.0a.tmp").write_text("half")
    (folder / "checkpoints/best.ckpt").write_text("linked before last stood")
    (folder / "provenance.json").write_text("{}")
    done = train_here(*TINY_GPT, "resume=auto", "name=mine", folder=str(folder))
    assert done["status"] == "completed"
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_resume_reports_that_a_run_was_killed_without_a_status(train_here: Train, workplace: Path) -> None:
    from gptexp.training.experiment import run_experiment as run_job

    whole = train_here(*TINY_GPT, "trainer.max_steps=4")
    (workplace / "run/result.json").unlink()
    run_job(compose(["resume=run", "trainer=cpu"]), Path("run").resolve())
    again = json.loads((workplace / "run/result.json").read_text(encoding="utf-8"))
    for name in ("status", "metrics", "best", "val", "steps", "tokens", "parameters"):
        assert again[name] == whole[name]
    assert again["resumed_from"] == 4
    assert rows(workplace / "run/metrics.csv") == 5
    with pytest.raises(ValueError, match="contains a finished run"):
        run_job(compose(["resume=run", "trainer=cpu"]), Path("run"))


def test_a_run_with_init_from_resumes_with_the_same_command(train_here: Train, workplace: Path) -> None:
    from gptexp.training.experiment import run_experiment as run_job

    train_here(*TINY_GPT)
    folder = workplace / "logs/runs/tuned/auto"
    line = ["init_from=run", *TINY, "data.path=story.txt", "resume=auto", "name=tuned", "schedule=constant"]
    run_job(compose([*line, "schedule.warmup_steps=0"]), folder)
    (folder / "result.json").write_text('{"status": "interrupted"}')
    config = compose([*line, "schedule.warmup_steps=0", "trainer.max_steps=3"])
    assert (Path(str(config.resume)).resolve(), config.init_from) == (folder, "run")
    run_job(config, folder)
    assert load(folder / "checkpoints/last.ckpt").config["init_from"] == "run"


def test_seconds_continue_after_a_resume(train_here: Train, workplace: Path) -> None:
    from gptexp.training.experiment import run_experiment as run_job

    before = train_here(*TINY_GPT, "trainer.max_steps=3")["training_seconds"]
    (workplace / "run/result.json").unlink()
    run_job(compose(["resume=run", "trainer.max_steps=4", "trainer=cpu"]), Path("run"))
    with (workplace / "run/metrics.csv").open(encoding="utf-8", newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    assert len(seconds) == 4
    assert seconds == sorted(seconds)
    assert seconds[3] > before


# -------------------------------------------------------------------------------- any layout


LAYOUTS = {
    "micro-batches of 1": ["trainer=cpu", "data.micro_batch_size=1"],
    "micro-batches of 2": ["trainer=cpu", "data.micro_batch_size=2"],
    "2 of ddp": ["trainer=ddp", *TWO],
    "2 of ddp, accumulating and recomputing": ["trainer=ddp", "data.micro_batch_size=1", RECOMPUTE, *TWO],
    "2 of fsdp, recomputing": ["trainer=fsdp", RECOMPUTE, *TWO],
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("optimizer", "precision", "steps", "tolerance"),
    [
        ("adamw", "32-true", 20, 1e-5),
        # torch's Newton-Schulz iteration rounds to bfloat16
        pytest.param("muon", "32-true", 20, 1e-3, marks=pytest.mark.weekly),
        pytest.param("adamw", "64-true", 100, 1e-9, marks=pytest.mark.weekly),
        (" ".join(["muon", *MUON_OPTIONS]), "64-true", 100, 1e-9),
    ],
)
def test_every_layout_uses_the_same_windows_and_gives_one_curve(
    workplace: Path, optimizer: str, precision: str, steps: int, tolerance: float
) -> None:
    settings = [*TINY, *TINY_GPT, "data.path=story.txt", *f"optimizer={optimizer}".split()]
    settings += [
        f"trainer.precision={precision}",
        f"trainer.max_steps={steps}",
        f"trainer.val_every_steps={steps // 2}",
        TRACE,
        "name=x",
    ]

    def run(folder: str, layout: list[str]) -> None:
        done = command("train", *settings, *layout, f"hydra.run.dir={folder}", cwd=workplace, quick=True)
        assert done.returncode == 0, done.stderr

    run("one", ["trainer=cpu"])
    windows, losses = windows_by_step(Path("one")), train_losses(Path("one"))
    assert len(windows) == steps
    assert len(losses) == steps + 2
    for i, (name, layout) in enumerate(LAYOUTS.items()):
        run(f"layout{i}", layout)
        assert windows_by_step(Path(f"layout{i}")) == windows, name
        assert train_losses(Path(f"layout{i}")) == pytest.approx(losses, rel=tolerance), name


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("first", "then"), [("2 of fsdp, recomputing", "micro-batches of 1"), ("micro-batches of 2", "2 of ddp")]
)
def test_a_run_moves_between_one_and_two_processes(workplace: Path, first: str, then: str) -> None:
    settings = [*TINY, *TINY_GPT, "data.path=story.txt", "trainer.precision=64-true", "schedule=constant", TRACE]
    whole = [*settings, "trainer.max_steps=6", "hydra.run.dir=whole"]
    half = [*settings, "trainer.max_steps=3", "hydra.run.dir=moved", "schedule.warmup_steps=null", *LAYOUTS[first]]
    for overrides in (whole, half):
        done = command("train", *overrides, cwd=workplace, quick=True)
        assert done.returncode == 0, done.stderr
    (workplace / "moved/result.json").unlink()  # simulates a stop at this step
    done = command("train", "resume=moved", "trainer.max_steps=6", TRACE, *LAYOUTS[then], cwd=workplace, quick=True)
    assert done.returncode == 0, done.stderr
    assert windows_by_step(Path("moved")) == windows_by_step(Path("whole"))
    # Three steps and two validations lie before the move in one, a validation less in the other.
    assert train_losses(Path("moved"))[5:] == pytest.approx(train_losses(Path("whole"))[4:], rel=1e-12)


# ------------------------------------------------------------------------------- launchers


def test_ranks_of_torchrun_and_srun_are_used() -> None:
    assert current({}) is None
    assert current({"RANK": "0", "WORLD_SIZE": "1"}) is None
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert current(torchrun) == Rank(5, 8, 1, 4)
    assert current(torchrun).nodes == 2  # type: ignore[union-attr]
    srun = {
        "SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_JOB_NODELIST": "node[07-08]",
    }  # fmt: skip
    adopted = dict(srun)
    slurm.adopt(adopted, interactive=False)
    assert current(adopted) == Rank(5, 8, 1, 4)
    assert (adopted["MASTER_ADDR"], adopted["GROUP_RANK"]) == ("node07", "1")
    shell = {**srun, "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}  # interactive, in a job of eight
    slurm.adopt(shell, interactive=False)
    assert current(shell) is None
    script = {name: value for name, value in srun.items() if name != "SLURM_STEP_ID"}  # python under sbatch, no srun
    slurm.adopt(script, interactive=False)
    assert current(script) is None


def test_a_requeued_job_of_an_array_keeps_its_name() -> None:
    assert slurm.job_id({}) is None
    assert slurm.job_id({"SLURM_JOB_ID": "9"}) == "9"
    assert slurm.job_id({"SLURM_JOB_ID": "11", "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "2"}) == "9_2"


def test_settings_that_contradict_the_launcher_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from gptexp.machine.hardware import processes_of

    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert processes_of(compose(["trainer=ddp", "trainer.accelerator=cpu"])) == 2
    with pytest.raises(ValueError, match=r"trainer\.devices=4: the launcher started 2 processes per node"):
        processes_of(compose(["trainer=ddp", "trainer.devices=4"]))
    with pytest.raises(ValueError, match=r"trainer\.num_nodes=3: the launcher started 2; omit the setting"):
        processes_of(compose(["trainer=ddp", "trainer.num_nodes=3"]))
    monkeypatch.delenv("RANK")
    with pytest.raises(ValueError, match=r"trainer\.num_nodes=2: several nodes need torchrun or srun"):
        processes_of(compose(["trainer=ddp", "trainer.num_nodes=2"]))
