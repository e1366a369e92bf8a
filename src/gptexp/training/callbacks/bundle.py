"""The file that `gptexp replay` reads, written when a loss or gradient is not finite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import torch

from gptexp.machine import ranks
from gptexp.machine.lightning import pl
from gptexp.models.weights import model_tensors
from gptexp.training.datamodule import Batches
from gptexp.training.module import LitGPT
from gptexp.training.nonfinite import NonFiniteLoss
from gptexp.util.files import atomic_path, open_new

FORMAT, VERSION = "gptexp bundle", 1


class BundleContent(TypedDict):
    """The file's content. what: the message. step: the bad step. model: weights before it. batches: of all ranks."""

    format: str
    version: int
    what: str
    step: int
    seed: int
    precision: str
    model: dict[str, torch.Tensor]
    config: dict[str, Any]
    tokenizer: dict[str, Any]
    data: dict[str, Any]
    batches: Batches


def bundle_path(folder: Path, step: int) -> Path:
    """Return the path of the bundle of a step."""
    return folder / f"nonfinite-step-{step}.pt"


class Bundle(pl.Callback):
    """Saves the weights before a step with a loss or gradient that is not finite, and its batches on all ranks.

    batches: returns the batches of a step, counted from 1. It is a pure function, so no batch is kept in memory.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], batches: Callable[[int], Batches]) -> None:
        self.folder, self.identity, self.batches = folder, identity, batches

    def on_exception(self, trainer: pl.Trainer, lit: pl.LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, NonFiniteLoss) or not exception.before_update:
            return  # the weights from before the bad step have been overwritten
        assert isinstance(lit, LitGPT)
        weights = model_tensors(lit.model)  # a collective; all ranks stopped in this step
        with ranks.first_then_others(f"bundle of step {exception.step}"):  # the others wait while rank 0 writes
            if trainer.is_global_zero:
                self._write(trainer, lit, exception, weights)

    def _write(self, trainer: pl.Trainer, lit: LitGPT, exception: NonFiniteLoss, weights: dict[str, Any]) -> None:
        content: BundleContent = {
            "format": FORMAT,
            "version": VERSION,
            "what": str(exception),
            "step": exception.step,
            "seed": lit.config.seed,
            "precision": str(trainer.precision),
            "model": weights,
            "config": self.identity["config"],
            "tokenizer": self.identity["tokenizer"],
            "data": self.identity["data"],
            "batches": self.batches(exception.step),
        }
        with atomic_path(bundle_path(self.folder, exception.step)) as temporary, open_new(temporary) as file:
            torch.save(content, file)
