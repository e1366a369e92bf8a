"""The areas of the table, in order."""

from __future__ import annotations

from gptexp.conformance import attention, rates, scaling, sizes, text, tokens, trained, weights
from gptexp.conformance.check import Area

AREAS: tuple[Area, ...] = (
    sizes.PARAMETERS,
    sizes.FLOPS,
    tokens.AREA,
    attention.AREA,
    rates.AREA,
    scaling.AREA,
    text.AREA,
    trained.AREA,
    weights.AREA,
)
