"""The progress display: a bar that moves with time, and lines in a file."""

from __future__ import annotations

import io
import re
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from gptexp.compose.composition import compose
from gptexp.machine.lightning import pl
from gptexp.training.callbacks import progress
from gptexp.training.callbacks.progress import ProgressLine
from gptexp.training.module import LitGPT


@cache
def settings() -> Any:
    return compose(["data=pydocs", "trainer.max_steps=1000", "trainer.log_every_steps=10"])


class Stub(LitGPT):
    """Records the completed step and nothing else."""

    step = 0

    def __init__(self, accumulate: int) -> None:
        pl.LightningModule.__init__(self)
        self.config, self.max_steps = settings(), 1000
        self.plan: Any = SimpleNamespace(accumulate=accumulate)


class Watched:
    """Micro-batches of the given seconds and their progress display; steps are logged as by RunRecord."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, terminal: bool, seconds: float, accumulate: int = 1) -> None:
        self.lit: Any = Stub(accumulate)
        self.seconds, self.now, self.taken = seconds, 0.0, 0
        monkeypatch.setattr(
            progress, "time", SimpleNamespace(monotonic=lambda: self.now, perf_counter=lambda: self.now)
        )
        self.record = SimpleNamespace(last={}, throughput=SimpleNamespace(tokens_per_step=64), started=0.0)
        self.file = io.StringIO()
        console = Console(file=self.file, force_terminal=terminal, width=120, legacy_windows=False, _environ={})
        self.line = ProgressLine(console, self.record)  # type: ignore[arg-type]
        self.trainer = cast(Any, SimpleNamespace(is_global_zero=True))
        self.line.on_train_start(self.trainer, self.lit)

    def take(self, micro_batches: int) -> list[str]:
        """The displayed steps and the text after them."""
        self.file.seek(0)
        self.file.truncate()
        for _ in range(micro_batches):
            self.now += self.seconds
            self.taken += 1
            self.lit.step = step = self.taken // self.lit.plan.accumulate
            if step and (step == 1 or step % 10 == 0):
                self.record.last = {"step": step, "train/loss": 4.0, "lr": 1e-3, "tokens_per_second": 32.0}
            self.line.on_train_batch_end(self.trainer, self.lit, None, None, self.taken - 1)
        return re.findall(r"step (\d+)/1000.*?(?=\n|step|\Z)", self.file.getvalue())


def test_the_progress_bar_moves_at_steps_without_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, terminal=True, seconds=5.0)
    assert watched.take(4) == ["1", "2", "3", "4"]
    assert "loss 4.00" in watched.file.getvalue()
    assert "33:12 left" in watched.file.getvalue()  # 996 steps of 2 s, at the logged rate


def test_the_progress_bar_moves_within_a_long_step(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, terminal=True, seconds=5.0, accumulate=4)
    assert watched.take(6) == ["0", "0", "0", "1", "1", "1"]
    task = watched.line._progress.tasks[0]  # type: ignore[union-attr]
    assert task.completed == 1.5


def test_the_progress_bar_is_drawn_at_a_limited_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(Watched(monkeypatch, terminal=True, seconds=0.001).take(1000)) <= 11


def test_redirected_output_has_one_early_line_and_then_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Watched(monkeypatch, terminal=False, seconds=3.0)
    assert slow.take(230) == ["4", "100", "200"]
    assert Watched(monkeypatch, terminal=False, seconds=0.01).take(230) == ["100", "200"]
