"""A loss or a gradient that is no number: found before its update is made, in the same step by all ranks."""

from __future__ import annotations

import math

import torch

from gptexp.training.muon import BatchedMuon
from gptexp.training.optimizers import MuonWithAdamW


class NonFiniteLoss(RuntimeError):
    """Training broke down: a loss or a gradient is no number any more.

    step: the first bad one. before_update: whether the weights are still those that it began with.
    """

    def __init__(self, message: str, step: int, *, before_update: bool) -> None:
        super().__init__(f"{message} at step {step}")
        self.step, self.before_update = step, before_update


def require_finite(name: str, value: float, step: int, *, before_update: bool = False) -> None:
    """Raise NonFiniteLoss unless it is a number."""
    if not math.isfinite(value):
        raise NonFiniteLoss(f"{name} is {value}", step, before_update=before_update)


class Watch:
    """Watches the gradient norm of every step, which is the same on every rank, and the loss where it is.

    On a CPU a bad step is refused at once. A GPU is not waited for: a flag in its memory keeps fused AdamW and
    our Muon from this update and from all later ones, and `look`, called where a step is logged or saved, reads it.
    Either way the weights stay those before the bad step. (torch hands `found_inf` to fused kernels for
    gradient scaling; nothing else sets it here.)
    """

    def __init__(self, *, waits: bool) -> None:
        self.waits = waits  # a CPU has nothing to wait for
        self._first_bad: torch.Tensor | None = None  # on the device: the first bad step, or 0

    def step(self, optimizer: torch.optim.Optimizer, norm: torch.Tensor, loss: torch.Tensor | None, step: int) -> None:
        """Before the update of `step`. loss: None where ranks have different ones.

        Raises:
            NonFiniteLoss: at once, on all ranks, where that costs nothing.
        """
        parts = [optimizer.muon, optimizer.adamw] if isinstance(optimizer, MuonWithAdamW) else [optimizer]
        if self.waits or not all(_reads_found_inf(part) for part in parts):
            if loss is not None:
                require_finite("train/loss", float(loss), step, before_update=True)
            require_finite("grad_norm", float(norm), step, before_update=True)
            return
        bad = ~torch.isfinite(norm)
        if loss is not None:
            bad = bad | ~torch.isfinite(loss)
        if self._first_bad is None:
            self._first_bad = torch.zeros((), device=norm.device, dtype=torch.int64)
        self._first_bad = torch.where(bad & (self._first_bad == 0), step, self._first_bad)
        for part in parts:
            part.found_inf = (self._first_bad > 0).float()  # type: ignore[attr-defined]

    def look(self) -> None:
        """Wait for the device and say whether a step was bad.

        Raises:
            NonFiniteLoss: it was; all ranks see the same.
        """
        if self._first_bad is not None and (step := int(self._first_bad)):
            raise NonFiniteLoss("train/loss or grad_norm is nan or inf", step, before_update=True)


def _reads_found_inf(optimizer: torch.optim.Optimizer) -> bool:
    fused = isinstance(optimizer, torch.optim.AdamW) and all(group["fused"] for group in optimizer.param_groups)
    return fused or isinstance(optimizer, BatchedMuon)
