"""The kernels that are fastest on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from gptexp.machine.hardware import cpu_has_amx, full_width_products
from gptexp.models.kernels.choice import modules_with_kernels


def products_faster_for(*, full_width: bool) -> tuple[torch.dtype, ...]:
    """The dtypes for which attention as products is faster than torch's fused kernel on this CPU.

    The fused kernel multiplies small blocks one at a time. Where these go to oneDNN, a call takes longer to start
    than to compute: bf16 without AMX, and float32 while `full_width_products` is active (full_width).
    """
    bf16 = () if cpu_has_amx() else (torch.bfloat16,)
    return (*bf16, torch.float32) if full_width else bf16


@contextmanager
def fastest_kernels(model: nn.Module, device: str = "cpu") -> Iterator[None]:
    """Compute with the fastest kernels for the device inside the block; restore the model's kernels afterwards.

    Training, scoring and replay run in such a block, so that their results agree bitwise on one machine.
    """
    before = [(module, module.kernels) for module in modules_with_kernels(model)]
    with full_width_products(device) as full_width:
        types = products_faster_for(full_width=full_width)
        try:
            for module, kernels in before:
                module.kernels = replace(kernels, products_for=types)
            yield
        finally:
            for module, kernels in before:
                module.kernels = kernels
