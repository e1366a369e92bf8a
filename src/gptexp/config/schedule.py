"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from gptexp.config.training import CosineConfig, LinearConfig, ScheduleConfig, WSDConfig


def warmup_steps(config: ScheduleConfig, max_steps: int) -> int:
    """Return the number of warm-up steps: the setting, or if it is null 1/20 of the run, at most 1,000."""
    return min(max_steps // 20, 1000) if config.warmup_steps is None else config.warmup_steps


def lr_multiplier(config: ScheduleConfig, max_steps: int, step: int) -> float:
    """Return the factor by which peak learning rates are multiplied at a step.

    Args:
        config: constant, cosine, linear or wsd.
        max_steps: steps of the whole run.
        step: index of the step, from 0.

    Returns:
        Above 0 and at most 1 for every step of the run. Warm-up is linear and reaches 1 just after its last step,
        so that the first step has a rate above 0. For the same reason the decay reaches min_lr_ratio just after
        the last step.
    """
    if step < 0:
        raise ValueError(f"step={step}: steps are counted from 0")
    warmup = warmup_steps(config, max_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if not isinstance(config, CosineConfig):
        return 1.0
    progress = _progress(step, _start_of_decay(config, warmup, max_steps), max_steps)
    linear = isinstance(config, (LinearConfig, WSDConfig))
    factor = 1 - progress if linear else (1 + math.cos(math.pi * progress)) / 2
    return config.min_lr_ratio + (1 - config.min_lr_ratio) * factor


def _start_of_decay(config: CosineConfig, warmup: int, max_steps: int) -> int:
    """Return the first step of the decay, which still has the peak rate."""
    if isinstance(config, WSDConfig):
        return max(warmup, max_steps - round(config.decay_fraction * max_steps))
    return warmup


def _progress(step: int, start: int, end: int) -> float:
    """Return the fraction of the steps from `start` to `end` before `step`, from 0 to 1."""
    if step >= end:
        return 1.0
    return (step - start) / (end - start) if step > start else 0.0
