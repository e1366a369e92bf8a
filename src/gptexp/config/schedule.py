"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from gptexp.config.training import CosineConfig, LinearConfig, ScheduleConfig, WSDConfig


def warmup_steps(config: ScheduleConfig, max_steps: int) -> int:
    """Steps of warm-up: the setting, or where it is null 1/20 of the run, at most 1,000."""
    return min(max_steps // 20, 1000) if config.warmup_steps is None else config.warmup_steps


def lr_multiplier(config: ScheduleConfig, max_steps: int, step: int) -> float:
    """What a group's peak learning rate is multiplied by.

    Args:
        config: constant, cosine, linear or wsd.
        max_steps: steps of the whole run.
        step: the step about to be taken, from 0.

    Returns:
        A number above 0 and at most 1 for every step of the run. Warm-up rises evenly and reaches 1 right
        after its last step, so the first step isn't spent on a rate of 0. The fall ends at
        min_lr_ratio right after the last step, for the same reason.
    """
    if step < 0:
        raise ValueError(f"step={step}: steps are counted from 0")
    warmup = warmup_steps(config, max_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if not isinstance(config, CosineConfig):
        return 1.0
    progress = _progress(step, _start_of_fall(config, warmup, max_steps), max_steps)
    straight = isinstance(config, (LinearConfig, WSDConfig))
    height = 1 - progress if straight else (1 + math.cos(math.pi * progress)) / 2
    return config.min_lr_ratio + (1 - config.min_lr_ratio) * height


def _start_of_fall(config: CosineConfig, warmup: int, max_steps: int) -> int:
    """The step from which the fall is counted; it still has the full rate."""
    if isinstance(config, WSDConfig):
        return max(warmup, max_steps - round(config.decay_fraction * max_steps))
    return warmup


def _progress(step: int, start: int, end: int) -> float:
    """0 up to `start`, 1 from `end` on."""
    if step >= end:
        return 1.0
    return (step - start) / (end - start) if step > start else 0.0
