"""Lightning's loop without what costs time at every step and does nothing.

A step of Lightning's calls a dozen hooks of every callback, most of them empty, each inside a context of a profiler
that doesn't profile, and notes each one's name on the module. For a small model on a CPU that is more work than
its matrices are.
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
    """Lightning's profiler that does nothing, at less cost."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]
        return self._nothing


class QuickModule(pl.LightningModule):
    """A LightningModule whose name of the current hook, written dozens of times a step, takes the short way.

    Its batches are tuples of tensors, and go to the device as they are.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":
            self.__dict__[name] = value  # past nn.Module, which would look whether it is a parameter
        else:
            super().__setattr__(name, value)

    def _on_before_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        return batch

    def _apply_batch_transfer_handler(self, batch: Any, device: Any = None, dataloader_idx: int = 0) -> Any:
        device = device or self.device
        return tuple(part.to(device, non_blocking=device.type == "cuda") for part in batch)


def skip_empty_hooks(trainer: pl.Trainer, lit: pl.LightningModule) -> None:
    """Let Lightning pass over the hooks of a step that nobody has written: it leaves out what can't be called."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for owner, base in (*((callback, pl.Callback) for callback in callbacks), (lit, pl.LightningModule)):
        for name in STEP_HOOKS:
            if getattr(type(owner), name) is getattr(base, name) and name not in vars(owner):
                setattr(owner, name, None)
