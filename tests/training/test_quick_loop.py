"""A step without unnecessary work has the same result."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from rich.console import Console

from gptexp.compose.composition import compose
from gptexp.config import Accelerator, Strategy
from gptexp.machine import hardware
from gptexp.machine.lightning import pl
from gptexp.training.build import Experiment, build_experiment
from gptexp.training.loop import STEP_HOOKS, skip_empty_hooks
from gptexp.training.module import LitGPT
from gptexp.training.run import fit
from gptexp.util import threads
from gptexp.util.seeds import dropout_seed, seed_generator

CALLED = ("on_train_batch_start", "on_after_backward", "on_before_optimizer_step", "on_train_batch_end")


class Listener(pl.Callback):
    """A user-defined callback with some hooks of a step."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.drawn: list[float] = []

    def on_train_batch_start(self, *_: object) -> None:
        self.heard.append("on_train_batch_start")

    def on_after_backward(self, *_: object) -> None:
        self.heard.append("on_after_backward")
        self.drawn.append(float(torch.rand(())))

    def on_before_optimizer_step(self, *_: object) -> None:
        self.heard.append("on_before_optimizer_step")

    def on_train_batch_end(self, *_: object) -> None:
        self.heard.append("on_train_batch_end")


def tiny(workplace: Path, *overrides: str) -> Experiment:
    settings = ["data.val_bytes=600", "data.global_batch_size=4", "model.block_size=16", "trainer=cpu"]
    lengths = ["trainer.max_steps=2", "trainer.val_every_steps=2", f"paths.cache={workplace}/cache"]
    config = compose(["model=bigram", *settings, *lengths, "callbacks.samples.tokens=0", *overrides])
    return build_experiment(config, workplace / "run", console=Console(quiet=True))


def test_hooks_of_user_callbacks_are_called_at_every_step(tmp_path: Path) -> None:
    experiment = tiny(tmp_path, "logger.tensorboard=false")
    listener = Listener()
    experiment.trainer.callbacks.append(listener)  # type: ignore[attr-defined]
    skip_empty_hooks(experiment.trainer, experiment.lit)
    fit(experiment)
    assert listener.heard == [*CALLED, *CALLED]
    assert listener.on_before_zero_grad is None  # the user did not define it
    assert all(hasattr(pl.Callback, name) and hasattr(pl.LightningModule, name) for name in STEP_HOOKS)


def test_random_numbers_of_a_step_depend_only_on_its_seed(tmp_path: Path) -> None:
    experiment = tiny(tmp_path, "logger.tensorboard=false")
    listener = Listener()
    experiment.trainer.callbacks.append(listener)  # type: ignore[attr-defined]
    fit(experiment)
    for step, drawn in enumerate(listener.drawn):
        seed_generator(torch.default_generator, dropout_seed(experiment.config.seed, step, 0, 0))
        assert drawn == float(torch.rand(()))


def test_the_name_of_the_current_hook_reaches_lightning(tmp_path: Path) -> None:
    lit = tiny(tmp_path).lit
    assert isinstance(lit, LitGPT)
    lit._current_fx_name = "training_step"
    assert lit._current_fx_name == "training_step"


@pytest.mark.parametrize(
    ("wanted", "device", "strategy", "flops", "compiled"),
    [
        (True, "cpu", Strategy.auto, 1.0, True),
        (False, "cuda", Strategy.auto, 1e20, False),
        ("auto", "cpu", Strategy.auto, 1e20, False),
        ("auto", "mps", Strategy.auto, 1e20, False),
        ("auto", "cuda", Strategy.auto, 1e15, False),
        ("auto", "cuda", Strategy.ddp, 1e18, True),
        ("auto", "cuda", Strategy.fsdp, 1e18, False),
    ],
)
def test_auto_compiles_only_if_it_saves_time(
    wanted: bool | str,
    device: str,
    strategy: Strategy,
    flops: float,
    compiled: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = compose(["model=mini_gpt"])
    config.trainer.compile, config.trainer.strategy, config.trainer.accelerator = wanted, strategy, Accelerator.auto
    monkeypatch.setattr(hardware, "accelerator_of", lambda config: device)
    monkeypatch.setattr(hardware, "_missing_for_compiling", lambda: None)
    chosen, why = hardware.choose_compile(config, flops)
    assert chosen is compiled
    assert why


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        ("0.5 0.5 0.5 1/300 77", None),
        ("0.5 0.5 0.5 100000/300 77", "1000"),
        ("nothing of the kind", None),
        (None, None),
    ],
)
def test_threads_sleep_early_on_a_busy_machine(
    load: str | None, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "loadavg"
    if load is not None:
        file.write_text(load)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setattr(threads, "LOAD", file)
    threads.share_cores()
    assert os.environ.get("GOMP_SPINCOUNT") == expected


def test_a_program_that_runs_for_a_moment_does_not_make_the_machine_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "loadavg"
    file.write_text("0.5 0.5 0.5 100000/300 77")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setattr(threads, "LOAD", file)
    monkeypatch.setattr(
        "gptexp.util.threads.time.sleep", lambda seconds: seconds and file.write_text("0.5 0.5 0.5 1/300 77")
    )
    threads.share_cores()
    assert "GOMP_SPINCOUNT" not in os.environ
