"""What a job records and stores for other jobs of its sweep that continue it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from gptexp.machine.lightning import pl
from gptexp.objectives import Score
from gptexp.runs.checkpoint import Checkpoint
from gptexp.runs.layout import CHECKPOINTS, best_every
from gptexp.training.callbacks.progress import say
from gptexp.training.callbacks.record import RunRecord
from gptexp.training.callbacks.samples import TextSamples
from gptexp.training.module import LitGPT
from gptexp.training.prefixes import Curve, Logged, Prefixes, Scored, best_step
from gptexp.util.text import first_line


class StorePrefixes(pl.Callback):
    """Records the curve for other jobs, also at the steps at which only they log or validate; Checkpoints stores it.

    These additional validations are not logged and have no effect on this run, nor do other callbacks see them.
    curve: what the run recorded before this process started.
    """

    def __init__(
        self,
        folder: Path,
        prefixes: Prefixes,
        curve: Curve,
        record: RunRecord,
        samples: TextSamples | None,
        console: Console,
    ) -> None:
        self.folder, self.prefixes, self.curve, self.record = folder, prefixes, curve, record
        self.samples, self.console = samples, console
        self.others = prefixes.sharing.others

    def on_train_batch_end(
        self, trainer: pl.Trainer, lit: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(lit, LitGPT)
        step = lit.step
        if (batch_idx + 1) % lit.plan.accumulate or step > self.prefixes.sharing.last:
            return
        logs = step == self.record.last.get("step")
        if logs or any(step <= o.step and (step % o.log_every == 0 or step == 1) for o in self.others):
            loss = self.record.last["train/loss"] if logs else lit.train_loss()
            norm = math.nan if lit.grad_norm is None else float(lit.grad_norm)
            self.curve.train[step] = Logged(loss, norm, self.record.throughput.elapsed())
        if self._scores(step) and not lit.validates(step):
            with _evaluating(lit):
                score = self._score(trainer, lit)
                text = None if self.samples is None else self.samples.generate(trainer, lit)
            self._add(step, score, text)

    def on_validation_end(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitGPT)
        if lit.step <= self.prefixes.sharing.last and lit.score is not None:
            silent = self.samples is None or not self.samples.config.tokens
            self._add(lit.step, lit.score, None if silent or self.samples is None else self.samples.text)

    def on_train_end(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            for path in (self.folder / CHECKPOINTS).glob(best_every("*")):
                path.unlink(missing_ok=True)

    def _scores(self, step: int) -> bool:
        return any(step <= other.step and step % other.val_every == 0 for other in self.others)

    def _add(self, step: int, score: Score, text: str | None) -> None:
        self.curve.val[step] = Scored(self.record.throughput.seconds, score.sums(), text)

    def _score(self, trainer: pl.Trainer, lit: LitGPT) -> Score:
        """Return what Lightning's validation loop would give now."""
        self.record.throughput.pause()
        lit.on_validation_epoch_start()
        for number, batch in enumerate(trainer.datamodule.val_dataloader()):  # type: ignore[attr-defined]
            placed = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
            trainer.strategy.validation_step(placed, number)
        return lit.total_score()

    # ------------------------------------------------------------------------- called by Checkpoints

    def saves(self, step: int) -> bool:
        """Return whether a checkpoint is needed after a step without a validation of this run."""
        return step in self.curve.val or any(step == other.step for other in self.others)

    def shared(self, step: int) -> dict[str, Any] | None:
        """Return what a checkpoint needs so that another job can continue from it."""
        if step > self.prefixes.sharing.last:
            return None
        return {"mark": self.prefixes.mark(step), "initial": self.prefixes.initial, **self.curve.as_plain()}

    def names(self, lit: LitGPT) -> Iterator[str]:
        """Yield further names of a checkpoint that has the best score of another job's validations."""
        for every in {other.val_every for other in self.others if lit.step <= other.step}:
            if lit.step == best_step(self.curve, every, lit.objective, lit.config.objective.best_by):
                yield best_every(every)

    def store(self, checkpoint: Checkpoint) -> None:
        """Store the newest checkpoint if a waiting job can continue from it."""
        step = checkpoint.step
        if not any(step == other.step and other.waits() for other in self.others):
            return
        try:
            self.prefixes.store(self.folder, step)
        except (OSError, ValueError) as error:
            if not self.prefixes.place(step).exists():  # otherwise another job has stored it at the same time
                say(self.console, f"notice: the prefix of {step} steps could not be stored: {first_line(error)}")


@contextmanager
def _evaluating(lit: LitGPT) -> Iterator[None]:
    """A context without gradients and dropout, as in a validation."""
    modes = {module: module.training for module in lit.modules()}
    lit.eval()
    try:
        with torch.inference_mode() if lit.plan.world_size == 1 else torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
