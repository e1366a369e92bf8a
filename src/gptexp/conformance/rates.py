"""Learning rates of nanoGPT's GPT-2 run at some steps, from its closed formula."""

from __future__ import annotations

import math
from collections.abc import Callable

from gptexp.config.schedule import lr_multiplier
from gptexp.config.training import CosineConfig
from gptexp.conformance.check import Area, Check, Inputs

PEAK, LEAST, WARMUP, STEPS = 6e-4, 6e-5, 2_000, 600_000
SOURCE = "nanoGPT, train.py, get_lr with its defaults"


def rate(step: int) -> Callable[[Inputs], float]:
    """Return a function that computes the rate at a step with `schedule=cosine` and these settings."""

    def compute(_: Inputs) -> float:
        config = CosineConfig(warmup_steps=WARMUP, min_lr_ratio=LEAST / PEAK)
        return PEAK * lr_multiplier(config, STEPS, step)

    return compute


def _check(step: int, published: float, where: str) -> Check:
    return Check(
        name=f"rate at step {step:,} ({where})",
        published=published,
        tolerance=1e-15,
        source=SOURCE,
        compute=rate(step),
    )


AREA = Area(
    title="Learning rates",
    note="2,000 steps of warm-up to 6e-4, then half a cosine to 6e-5 at step 600,000. Equal up to rounding.",
    checks=(
        _check(0, PEAK / 2001, "the first"),
        _check(999, PEAK * 1000 / 2001, "half of the warm-up"),
        _check(2_000, PEAK, "the peak"),
        _check(151_500, LEAST + (PEAK - LEAST) * (2 + math.sqrt(2)) / 4, "a quarter of the decay"),
        _check(301_000, (PEAK + LEAST) / 2, "half of the decay"),
        _check(600_000, LEAST, "the end"),
    ),
)
