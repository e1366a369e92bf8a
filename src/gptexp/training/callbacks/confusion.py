"""A classifier's confusion matrix in TensorBoard after each validation."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from gptexp.machine.lightning import pl
from gptexp.objectives import Score
from gptexp.training.module import LitGPT
from gptexp.util.text import literal

MOST = 40  # labels in a readable figure or table


class ConfusionMatrix(pl.Callback):
    """Logs the confusion matrix as a figure if matplotlib is installed, else as a table; classification only."""

    def on_validation_end(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitGPT)
        if trainer.is_global_zero:
            log_confusion(trainer.loggers, lit.score, lit.step)


def log_confusion(loggers: Iterable[pl.loggers.Logger], score: Score | None, step: int) -> None:
    """Log the confusion matrix of a score that has one, unless it is too large to read."""
    confusion = getattr(score, "confusion", None)
    if confusion is None or len(confusion) > MOST:
        return
    labels = [str(label) for label in score.labels]  # type: ignore[union-attr]
    for logger in loggers:
        writer: Any = getattr(logger, "experiment", None)
        if hasattr(writer, "add_figure") and find_spec("matplotlib") is not None:
            from gptexp.report.confusion import confusion_figure

            writer.add_figure("confusion", confusion_figure(confusion, labels), step)
        elif hasattr(writer, "add_text"):
            writer.add_text("confusion", confusion_table(confusion, labels), step)


def confusion_table(confusion: Any, labels: list[str]) -> str:
    """Return a Markdown table: a row for each label, a column for each prediction."""
    names = [literal(label[:40]) for label in labels]
    rows = [["label ↓ found →", *names], ["---"] * (1 + len(names))]
    rows += [[name, *(str(int(n)) for n in row)] for name, row in zip(names, confusion, strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
