"""What a breakdown of training leaves behind for `python -m gptexp.replay`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gptexp.machine import ranks
from gptexp.machine.lightning import pl
from gptexp.models.weights import model_tensors
from gptexp.training.datamodule import Batches
from gptexp.training.module import LitGPT
from gptexp.training.nonfinite import NonFiniteLoss
from gptexp.util.files import atomic_path, open_new

FORMAT, VERSION = "gptexp bundle", 1


def bundle_path(folder: Path, step: int) -> Path:
    """Where the bundle of a step lies in its run's folder."""
    return folder / f"nonfinite-step-{step}.pt"


class Bundle(pl.Callback):
    """When a loss or gradient is no number, saves the weights before that step, and the step's batches of all ranks.

    batches: of a step, counted from 1; a pure function (law 1), so nothing is kept while all goes well.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], batches: Callable[[int], Batches]) -> None:
        self.folder, self.identity, self.batches = folder, identity, batches

    def on_exception(self, trainer: pl.Trainer, lit: pl.LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, NonFiniteLoss) or not exception.before_update:
            return  # the weights that the bad step began with are gone
        assert isinstance(lit, LitGPT)
        weights = model_tensors(lit.model)  # a collective; all ranks stopped in this step
        with ranks.first_then_others(f"bundle of step {exception.step}"):  # none leaves while rank 0 writes
            if trainer.is_global_zero:
                self._write(trainer, lit, exception, weights)

    def _write(self, trainer: pl.Trainer, lit: LitGPT, exception: NonFiniteLoss, weights: dict[str, Any]) -> None:
        plain = {
            "format": FORMAT,
            "version": VERSION,
            "what": str(exception),
            "step": exception.step,
            "seed": lit.config.seed,
            "precision": trainer.precision,
            "model": weights,
            "config": self.identity["config"],
            "tokenizer": self.identity["tokenizer"],
            "data": self.identity["data"],
            "batches": self.batches(exception.step),
        }
        with atomic_path(bundle_path(self.folder, exception.step)) as temporary, open_new(temporary) as file:
            torch.save(plain, file)
