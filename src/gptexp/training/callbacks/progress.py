"""Progress of training: a progress bar on a terminal, a few lines in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from gptexp.machine.lightning import pl
from gptexp.training.callbacks.record import RunRecord
from gptexp.training.module import LitGPT
from gptexp.util.text import clock, quantity

LOG_LINES = 10  # progress lines in a log file, besides those of validation
FIRST_LINE = 10.0  # seconds of training until the first line in a log file
REDRAW = 0.1  # seconds between two updates of the bar


class ProgressLine(pl.Callback):
    """Shows step, loss, learning rate, tokens per second and remaining time, and a line for each validation."""

    def __init__(self, console: Console, record: RunRecord) -> None:
        self.console, self.record = console, record
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._began = self._drawn_at = 0.0  # time.monotonic
        self._printed = False

    def on_train_start(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitGPT)
        if not trainer.is_global_zero:
            return
        total, self._began = lit.max_steps, time.monotonic()
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("step {task.fields[step]}/{task.total:.0f}"),
                BarColumn(bar_width=28),
                TextColumn("{task.percentage:>3.0f}%{task.fields[state]}"),
                console=self.console,
                auto_refresh=False,
                transient=True,
            )
            self._task = self._progress.add_task("", total=total, completed=lit.step, step=lit.step, state="")
            self._progress.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, lit: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(lit, LitGPT)
        micro = (batch_idx + 1) % lit.plan.accumulate
        if self._progress is not None:
            self._redraw(lit, lit.step + micro / lit.plan.accumulate)
        elif not micro and self._line_is_due(lit):
            self.console.print(f"step {lit.step}/{lit.max_steps}{self._state(lit, lit.step)}")
            self._printed = True

    def _redraw(self, lit: LitGPT, done: float) -> None:
        """Update the bar, with the last logged values. done: steps, including a fraction of the current one."""
        assert self._progress is not None
        if time.monotonic() - self._drawn_at > REDRAW:
            self._progress.update(self._task, completed=done, step=int(done), state=self._state(lit, done))
            self._progress.refresh()
            self._drawn_at = time.monotonic()

    def _line_is_due(self, lit: LitGPT) -> bool:
        """Return whether a log file gets a line: about ten times per run, at logged steps, the first one early."""
        last, logged = self.record.last.get("step"), lit.config.trainer.log_every_steps
        if last is None:
            return False
        if not self._printed and time.monotonic() - self._began > FIRST_LINE:
            return True
        interval = logged * max(1, round(lit.max_steps / LOG_LINES / logged))
        return last == lit.step and lit.step % interval == 0

    def _state(self, lit: LitGPT, done: float) -> str:
        last = self.record.last
        if not last:  # no step has been logged
            return ""
        left = (lit.max_steps - done) * self.record.throughput.tokens_per_step
        seconds = left / max(last["tokens_per_second"], 1e-9)
        return (
            f" · loss {last['train/loss']:.2f} · lr {last['lr']:.1e} · "
            f"{quantity(last['tokens_per_second'])} tok/s · {clock(seconds)} left"
        )

    def on_validation_end(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitGPT)
        if not trainer.is_global_zero or lit.score is None:
            return
        seconds = clock(time.perf_counter() - self.record.started)
        self.console.print(f"step {lit.step} · {lit.score.line()} · {seconds}")
        self._printed = True

    def on_train_end(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: pl.Trainer, lit: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def say(console: Console, text: str) -> None:
    """Print text literally: without markup, highlighting or truncation."""
    console.print(Text(text), soft_wrap=True)


def duration(seconds: float) -> str:
    """Return a rounded duration: about 1 minute, about 3 hours."""
    units: list[tuple[float, str]] = [(86400 * 365, "year"), (86400, "day"), (3600, "hour"), (60, "minute")]
    unit: Callable[[float, str], str] = lambda n, word: f"{n:,.0f} {word}{'' if round(n) == 1 else 's'}"  # noqa: E731
    for size, word in units:
        if seconds >= 0.95 * size:
            return f"about {unit(seconds / size, word)}"
    return "less than a minute"
