"""Where a trained model computes, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from gptexp.machine import hardware

NARROW = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class Placement:
    """The device of a model, and its precision by a name of `trainer.precision`."""

    device: torch.device
    precision: str

    def context(self) -> AbstractContextManager[object]:
        """Return the context in which the model's forward passes have this precision, as in training."""
        narrow = NARROW.get(self.precision)
        return torch.autocast(self.device.type, narrow) if narrow else nullcontext()


def place(model: nn.Module, device: str, precision: str) -> Placement:
    """Move the weights of a model to a device of `hardware.find_device`.

    precision: auto chooses as training does.

    Raises:
        ValueError: the weights do not fit into the GPU's memory, or the device lacks the precision.
    """
    if precision == "auto":
        precision, _ = hardware.fastest_precision(device, width_of(model))
    wide = precision == "64-true"
    if wide and device == "mps":
        raise ValueError("--precision=64-true: an Apple GPU has no float64; use --device cpu")
    needed, free = (8 if wide else 4) * sum(p.numel() for p in model.parameters()), hardware.free_memory(device)
    if device == "cuda" and needed > free:
        raise ValueError(
            f"--device=cuda: the weights need {needed / hardware.GIB:.1f} GiB, but {free / hardware.GIB:.1f} GiB are "
            "free on this GPU; use --device cpu"
        )
    model.to(device, torch.float64 if wide else torch.float32)
    return Placement(torch.device(device), precision)


def width_of(model: nn.Module) -> int:
    """Return n_embd, or 0 for a model without it."""
    return int(getattr(getattr(model, "config", None), "n_embd", 0))


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's weights."""
    return next(model.parameters()).device
