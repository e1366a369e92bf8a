"""Positions: the slopes of ALiBi and the sinusoidal table."""

from __future__ import annotations

import math

import torch

from gptexp.conformance.check import Area, Check, Inputs
from gptexp.models.attention import alibi_slopes
from gptexp.models.layers import sinusoidal_table


def slopes(_: Inputs) -> tuple[float, ...]:
    """Return the ALiBi slopes of 8 heads."""
    return tuple(alibi_slopes(8))


def sines(_: Inputs) -> tuple[float, ...]:
    """Return position 1 of the sinusoidal table of width 4."""
    return tuple(sinusoidal_table(torch.tensor([1]), 4, torch.float64)[0].tolist())


AREA = Area(
    title="Positions",
    checks=(
        Check(
            name="ALiBi: slopes of 8 heads",
            published=tuple(2.0**-i for i in range(1, 9)),
            source="arXiv 2108.12409, section 3",
            compute=slopes,
        ),
        Check(
            name="sinusoidal table, position 1, width 4",
            published=(math.sin(1), math.cos(1), math.sin(0.01), math.cos(0.01)),
            tolerance=1e-12,
            source="arXiv 1706.03762, section 3.5",
            compute=sines,
        ),
    ),
)
