"""Asynchronous checkpoints: training continues, the files are those of synchronous ones, and no error is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gptexp.runs import checkpoint as ckpt
from gptexp.runs.opening import load
from gptexp.training.background import Background
from gptexp.training.callbacks.checkpoints import Checkpoints
from gptexp.training.callbacks.record import RunRecord
from gptexp.training.module import LitGPT
from gptexp.util.files import DiskFullError
from support.runs import TINY, TINY_GPT, command

Train = Callable[..., dict[str, Any]]
ASYNCHRONOUS = "callbacks.checkpoint.asynchronous=true"
OFTEN = ["trainer.max_steps=9", "trainer.val_every_steps=4", "callbacks.checkpoint.every_steps=3", "model.dropout=0.1"]


def require_equal(one: Path, two: Path) -> None:
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    for path in one.iterdir():
        a, b = load(path), load(two / path.name)
        assert (a.step, a.metrics["best"], a.metrics["sums"]) == (b.step, b.metrics["best"], b.metrics["sums"])
        assert list(a.model) == list(b.model)
        assert all(torch.equal(a.model[name], b.model[name]) for name in a.model)
        assert {name: list(state) for name, state in a.optimizer.items()} == {
            name: list(state) for name, state in b.optimizer.items()
        }
        for name, state in a.optimizer.items():
            assert all(torch.equal(value, b.optimizer[name][key]) for key, value in state.items())


def test_asynchronous_checkpoints_are_those_of_a_run_that_waits(train_here: Train) -> None:
    train_here(*TINY_GPT, *OFTEN, folder="waits")
    train_here(*TINY_GPT, *OFTEN, ASYNCHRONOUS, folder="continues")
    require_equal(Path("waits/checkpoints"), Path("continues/checkpoints"))


def test_training_continues_and_does_not_change_what_is_being_written(
    train_here: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of step 1 is written after step 3."""
    train_here(*TINY_GPT, "trainer.max_steps=1", "schedule=constant", "schedule.warmup_steps=0", folder="one")
    later, original, log = threading.Event(), ckpt.rotate, RunRecord._log_step
    written: dict[int, dict[str, torch.Tensor]] = {}

    def rotate(state: ckpt.Checkpoint, folder: Path, **given: Any) -> None:
        assert later.wait(60)
        written[state.step] = {name: tensor.clone() for name, tensor in state.model.items()}
        original(state, folder, **given)

    def logging(record: RunRecord, trainer: Any, lit: LitGPT, step: int) -> None:
        if step == 3:
            assert not written
            later.set()
        log(record, trainer, lit, step)

    monkeypatch.setattr(ckpt, "rotate", rotate)
    monkeypatch.setattr(RunRecord, "_log_step", logging)
    often = ["callbacks.checkpoint.every_steps=4", "trainer.max_steps=5", "trainer.val_every_steps=5"]
    monkeypatch.setattr(Checkpoints, "_is_late", lambda callback: callback.record.last["step"] == 1)
    train_here(*TINY_GPT, *often, ASYNCHRONOUS, "schedule=constant", "schedule.warmup_steps=0", folder="five")
    assert list(written) == [1, 4, 5]
    expected = load(Path("one/checkpoints/last.ckpt")).model
    assert all(torch.equal(written[1][name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("failing", [3, 9])
def test_a_failed_write_ends_the_run_with_its_error(
    train_here: Train, workplace: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    original = ckpt.rotate

    def rotate(state: ckpt.Checkpoint, folder: Path, **given: Any) -> None:
        if state.step == failing:
            raise DiskFullError(28, f"{folder}/last.ckpt: the disk is full")
        original(state, folder, **given)

    monkeypatch.setattr(ckpt, "rotate", rotate)
    with pytest.raises(DiskFullError, match="the disk is full"):
        train_here(*TINY_GPT, *OFTEN, ASYNCHRONOUS)
    assert not (workplace / "run/result.json").exists()
    assert failing == 3 or load(Path("run/checkpoints/last.ckpt")).step == 8


def test_the_next_call_raises_the_error_of_the_background() -> None:
    background, done = Background(), list[int]()
    background.start(lambda: done.append(1))
    background.finish()
    background.start(lambda: done.append(1 // 0))
    with pytest.raises(ZeroDivisionError):
        background.start(lambda: done.append(2))
    background.check()
    assert done == [1]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_shards_are_gathered_into_the_file_of_a_run_that_waits(workplace: Path, optimizer: str) -> None:
    settings = [*TINY, *TINY_GPT, *OFTEN, "data.path=story.txt", "trainer=fsdp", "trainer.accelerator=cpu"]
    for name, more in {"waits": [], "continues": [ASYNCHRONOUS]}.items():
        line = [*settings, "trainer.devices=2", f"optimizer={optimizer}", *more, f"hydra.run.dir={name}"]
        done = command("train", *line, cwd=workplace, quick=True)
        assert done.returncode == 0, done.stderr
    require_equal(workplace / "waits/checkpoints", workplace / "continues/checkpoints")
