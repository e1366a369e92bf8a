"""Remove overhead from Lightning's training loop.

At every step Lightning calls a dozen hooks of every callback. Most of them are empty, each runs inside a profiler
context, and each sets an attribute of the module. For a small model on a CPU this costs more than its matrix products.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from gptexp.machine.lightning import pl

STEP_HOOKS = (  # that both callbacks and modules have
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)


class NoProfiler(pl.profilers.PassThroughProfiler):
    """A profiler that does nothing, faster than Lightning's."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]
        return self._nothing


class QuickModule(pl.LightningModule):
    """A LightningModule that assigns the current hook's name fast; Lightning does so dozens of times per step.

    Batches must be tuples of tensors.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":
            self.__dict__[name] = value  # skips the check in nn.Module whether it is a parameter
        else:
            super().__setattr__(name, value)

    def _on_before_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        return batch

    def _apply_batch_transfer_handler(self, batch: Any, device: Any = None, dataloader_idx: int = 0) -> Any:
        device = device or self.device
        return tuple(part.to(device, non_blocking=device.type == "cuda") for part in batch)


def skip_empty_hooks(trainer: pl.Trainer, lit: pl.LightningModule) -> None:
    """Set the step hooks that are not overridden to None; Lightning skips hooks that are not callable."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for target, base in (*((callback, pl.Callback) for callback in callbacks), (lit, pl.LightningModule)):
        for name in STEP_HOOKS:
            if getattr(type(target), name) is getattr(base, name) and name not in vars(target):
                setattr(target, name, None)
