"""Detect a loss or a gradient that is not finite, before the update, in the same step on all ranks."""

from __future__ import annotations

import math

import torch

from gptexp.training.muon import BatchedMuon
from gptexp.training.optimizers import MuonWithAdamW


class NonFiniteLoss(RuntimeError):
    """A loss or a gradient is not finite.

    step: the first bad step. before_update: whether the weights are still those from before that step.
    """

    def __init__(self, message: str, step: int, *, before_update: bool) -> None:
        super().__init__(f"{message} at step {step}")
        self.step, self.before_update = step, before_update


def require_finite(name: str, value: float, step: int, *, before_update: bool = False) -> None:
    """Raise NonFiniteLoss if the value is not finite."""
    if not math.isfinite(value):
        raise NonFiniteLoss(f"{name} is {value}", step, before_update=before_update)


class Watch:
    """Checks the gradient norm of every step, and the loss where all ranks have the same one.

    On a CPU a bad step raises at once. On a GPU that would wait for the device; instead a flag in its memory stops
    fused AdamW and BatchedMuon from making this update and all later ones, and `look`, called when a step is logged
    or saved, reads the flag. In both cases the weights stay those before the bad step. (The flag is torch's
    `found_inf`, which fused kernels read for gradient scaling; nothing else sets it here.)

    waits: check at once, as on a CPU.
    """

    def __init__(self, *, waits: bool) -> None:
        self.waits = waits
        self._first_bad: torch.Tensor | None = None  # on the device: the first bad step, or 0

    def step(self, optimizer: torch.optim.Optimizer, norm: torch.Tensor, loss: torch.Tensor | None, step: int) -> None:
        """Check before the update of `step`. loss: None where ranks have different losses.

        Raises:
            NonFiniteLoss: if the check does not have to wait for a device; on all ranks.
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
        """Wait for the device and check whether a step was bad.

        Raises:
            NonFiniteLoss: a step was bad; on all ranks.
        """
        if self._first_bad is not None and (step := int(self._first_bad)):
            raise NonFiniteLoss("train/loss or grad_norm is nan or inf", step, before_update=True)


def _reads_found_inf(optimizer: torch.optim.Optimizer) -> bool:
    fused = isinstance(optimizer, torch.optim.AdamW) and all(group["fused"] for group in optimizer.param_groups)
    return fused or isinstance(optimizer, BatchedMuon)
