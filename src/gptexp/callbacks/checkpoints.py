"""When the run is saved, and what is saved."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from gptexp import checkpoint
from gptexp.callbacks.record import RunRecord
from gptexp.config import CheckpointConfig
from gptexp.lit import LitGPT
from gptexp.optim import named_optimizer_state


class Checkpoints(pl.Callback):
    """Saves last.ckpt after each validation, every so many steps or minutes; best.ckpt by val/bpb.

    identity: config, tokenizer and data fingerprint, as plain data.
    """

    def __init__(self, folder: Path, config: CheckpointConfig, identity: dict[str, Any], record: RunRecord) -> None:
        self.folder, self.config, self.identity, self.record = folder, config, identity, record
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, lit: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(lit, LitGPT)
        if (batch_idx + 1) % lit.plan.accumulate == 0 and self._is_due(trainer, lit):
            self._save(lit, best=False)

    def _is_due(self, trainer: pl.Trainer, lit: LitGPT) -> bool:
        if lit.validates(lit.step):
            return False  # a validation follows, which saves with its score
        if self.config.every_steps is not None and lit.step % self.config.every_steps == 0:
            return True
        if self.config.every_minutes is None:
            return False
        late = time.monotonic() - self._saved_at > 60 * self.config.every_minutes
        return bool(trainer.strategy.broadcast(late)) if trainer.world_size > 1 else late

    def on_validation_end(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitGPT)
        self._save(lit, best=self.record.is_best)

    def _save(self, lit: LitGPT, *, best: bool) -> None:
        """A collective: sharded tensors are gathered on every rank, rank 0 writes."""
        lit.train_loss()  # never save weights that are no numbers
        optimizer = lit.trainer.optimizers[0]
        state = checkpoint.Checkpoint(
            step=lit.step,
            model=checkpoint.weights(lit.model),
            optimizer=named_optimizer_state(lit.model, optimizer),
            metrics={"last": lit.score.metrics() if lit.score else None, "best": self.record.best},
            **self.identity,
        )
        if lit.trainer.is_global_zero:
            checkpoint.rotate(state, self.folder, best=best)
        self._saved_at = time.monotonic()
