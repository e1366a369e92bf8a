"""The settings that give the length of a run, of which each run has one. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gptexp.config.rules import require

LENGTHS = ("max_steps", "max_tokens", "max_flops", "tokens_per_parameter", "max_time")  # of the group trainer
LARGEST_BUDGET = 1e40
_UNITS = (86400, 3600, 60, 1)  # of the groups of _DURATION
_DURATION = re.compile(
    r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?", re.ASCII
)


def seconds_of(duration: str) -> float:
    """Return the seconds of a duration such as 30s, 5min, 1h30m or 2d.

    Raises:
        ValueError: it has another form, or is shorter than a second.
    """
    found = _DURATION.fullmatch(duration.replace(" ", ""))
    parts = [float(part or 0) for part in found.groups()] if found else []
    seconds = sum(part * unit for part, unit in zip(parts, _UNITS, strict=False))
    require(seconds >= 1, "trainer.max_time", duration, "must be a duration of at least a second: 30s, 5min or 1h30m")
    return seconds


def require_budget(name: str, value: float | None) -> None:
    """Refuse an amount that is not above 0, or not finite."""
    allowed = value is None or (math.isfinite(value) and 0 < value <= LARGEST_BUDGET)
    require(allowed, f"trainer.{name}", value, f"must be above 0, at most {LARGEST_BUDGET:.0e}")


def asked(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the lengths that the settings of a trainer give, by name."""
    return {name: trainer[name] for name in LENGTHS if trainer.get(name) is not None}


def require_one(names: Sequence[str], place: str = "") -> None:
    """Refuse a run without a length, and one with two.

    place: where the lengths are given, as the beginning of the message.

    Raises:
        ValueError: the message names the settings.
    """
    if len(names) > 1:
        given = " and ".join(f"trainer.{name}" for name in names)
        raise ValueError(f"{place}{given}: a run has one length; leave out {'one' if len(names) == 2 else 'others'}")
    if not names:
        raise ValueError(f"{place}trainer.max_steps=null: the run has no length; give {_listed()}")


def _listed() -> str:
    return ", ".join(f"trainer.{name}" for name in LENGTHS[:-1]) + f" or trainer.{LENGTHS[-1]}"
