"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from gptexp.config.training import ScheduleConfig


def warmup_steps(config: ScheduleConfig, max_steps: int) -> int:
    """Return the number of warm-up steps: the setting, or if it is null 1/20 of the run, at most 1,000."""
    return min(max_steps // 20, 1000) if config.warmup_steps is None else config.warmup_steps


def lr_multiplier(config: ScheduleConfig, max_steps: int, step: int) -> float:
    """Return the factor by which peak learning rates are multiplied at a step.

    Args:
        config: settings of the schedule.
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
    factor = config.after_warmup(step, warmup, max_steps)
    if not (isinstance(factor, (int, float)) and 0 <= factor < math.inf):
        raise ValueError(f"schedule={config.kind}: its factor at step {step} is {factor}; it must be a number from 0")
    return factor
