"""`trainer.max_time`: the number of steps for which a run takes so long, from a few measured steps of the same run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock

from gptexp.config import Config, NoveltyConfig
from gptexp.config.length import seconds_of
from gptexp.config.plugins import computing
from gptexp.config.rules import LARGEST
from gptexp.machine import hardware, rank_environment, ranks
from gptexp.machine.lightning import pl
from gptexp.training.length import Cost, Length, read_steps, write_steps
from gptexp.training.module import LitGPT
from gptexp.util.files import make_folder

FIRST = 6  # steps of the first measurement, which also loads libraries and fills caches
WARMUP = 3  # steps of each measurement that are not counted
SHARE, LEAST = 0.08, 1.0  # of the time asked for, and seconds, that the second measurement may take
DECISION, ROUGH, COMPILED, RESOLVED = "shared steps", "rough time", "compiled time", "resolved steps"  # rank 0 decides

T = TypeVar("T")
Train = Callable[[Config, int, list[pl.Callback]], float]
"""Trains so many steps in a temporary folder, with further callbacks, and returns the seconds of result.json."""


class Stopwatch(pl.Callback):
    """Measures the steps after the first WARMUP, and the validation after them with its sample and checkpoint.

    It must be the last callback, so that a validation contains the work of the others.
    """

    def __init__(self) -> None:
        self.step = self.validation = 0.0
        self._mark = 0.0
        self._marked = -1

    def on_train_batch_end(self, trainer: pl.Trainer, lit: pl.LightningModule, *_: Any) -> None:
        assert isinstance(lit, LitGPT)
        start = lit.first_step + WARMUP
        if lit.step == start != self._marked and not (trainer.fit_loop.batch_idx + 1) % lit.plan.accumulate:
            self._mark, self._marked = _now(lit), start

    def on_validation_start(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitGPT)
        now = _now(lit)
        self.step, self._mark = (now - self._mark) / (lit.step - self._marked), now

    def on_validation_end(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitGPT)
        self.validation = _now(lit) - self._mark


def _now(lit: LitGPT) -> float:
    """Return the time when the device is done."""
    if lit.device.type != "cpu":
        torch.accelerator.synchronize(lit.device)
    return time.perf_counter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds of a step, of a validation with its sample and checkpoint, and of the rest of a run."""

    step: float
    validation: float
    rest: float

    def steps_within(self, seconds: float, val_every_steps: int) -> int:
        """Return the most steps whose run takes at most so long, and at least one. The last step is validated."""
        left = max(0.0, seconds - self.rest)
        cycle = val_every_steps * self.step + self.validation
        cycles = int(left // cycle)
        further = int(max(0.0, left - cycles * cycle - self.validation) // self.step)
        return max(1, cycles * val_every_steps + min(further, val_every_steps - 1))


def steps_by_time(config: Config, cost: Cost, train: Train, resolution: Path | None) -> int:
    """Return the number of steps for trainer.max_time. Rank 0 decides; all ranks must call this.

    resolution: a file in which the runs of a configuration share the number: the first one measures.
    """
    who = rank_environment.current()
    with _held(resolution if who is None or who.rank == 0 else None):
        found = _agreed(DECISION, read_steps(resolution, config.trainer.length) if resolution else None)
        if found is None:
            found = _agreed(RESOLVED, _measured(config, cost, train))
            if resolution and (who is None or who.rank == 0):
                write_steps(resolution, Length(asked=config.trainer.length, max_steps=found))
    return found


def _agreed(key: str, value: T) -> T:
    """Return the value of rank 0. Each key is used once in a run."""
    who = rank_environment.current()
    if who is None:
        return value
    if who.rank:
        received: T = ranks.receive(key, timeout=ranks.NO_LIMIT)
        return received
    ranks.send(key, value)
    return value


@contextmanager
def _held(resolution: Path | None) -> Iterator[None]:
    """Wait until no other run of the configuration measures."""
    if resolution is None:
        yield
        return
    make_folder(resolution.parent)
    with FileLock(resolution.with_suffix(".lock")):
        yield


def _measured(config: Config, cost: Cost, train: Train) -> int:
    assert config.trainer.max_time is not None
    seconds, settings = seconds_of(config.trainer.max_time), config.trainer
    if settings.compile == "auto":
        settings = replace(settings, compile=False)
    step = _agreed(ROUGH, _times(_short(config, settings), FIRST, train).step)
    if config.trainer.compile == "auto":
        compiled, _ = hardware.choose_compile(config, seconds / step * cost.flops_per_step)
        settings = replace(settings, compile=compiled)
    if settings.compile is True:  # compiles and fills torch's cache, which the run itself uses
        step = _agreed(COMPILED, _times(_short(config, settings), FIRST, train).step)
    steps = max(FIRST, int(max(LEAST, SHARE * seconds) / step))
    return _times(_short(config, settings), steps, train).steps_within(seconds, config.trainer.val_every_steps)


def _short(config: Config, trainer: Any) -> Config:
    """Return the settings for a measurement: one validation, after the last step, and no observing plug-ins."""
    plugins = computing(config.callbacks.plugins)
    return replace(
        config,
        trainer=replace(trainer, val_every_steps=LARGEST),
        callbacks=replace(
            config.callbacks,
            checkpoint=replace(config.callbacks.checkpoint, every_minutes=None),
            novelty=NoveltyConfig(),
            plugins=plugins,
        ),
        logger=replace(config.logger, plugins={}),
    )


def _times(config: Config, steps: int, train: Train) -> Times:
    watch = Stopwatch()
    seconds = train(config, steps, [watch])
    rest = max(0.0, seconds - steps * watch.step - watch.validation)
    return Times(step=watch.step, validation=watch.validation, rest=rest)
