"""Reading the entries of a stranger's config.json: each wrong value is an error that names it (no torch)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gptexp.config.rules import LARGEST
from gptexp.util.errors import ConfigError
from gptexp.util.text import typed_value

Given = Mapping[str, Any]


def require(holds: bool, name: str, value: object, remedy: str) -> None:
    """Raise a ConfigError that names the entry, its value and the remedy, unless the rule holds."""
    if not holds:
        raise ConfigError(f"{name}={typed_value(value)[:80]}: {remedy}")


def require_fixed(given: Given, only: Given) -> None:
    """Refuse an entry with another value than the only one that gptexp's GPT supports."""
    for name, ours in only.items():
        value = given.get(name, ours)
        require(value == ours, name, value, f"gptexp's GPT supports only {typed_value(ours)}")


def size(given: Given, name: str, default: int, aliases: Sequence[str] = ()) -> int:
    """Return a whole number from 1; the first of `name` and its aliases that is given counts."""
    found = next((known for known in (name, *aliases) if known in given), name)
    value = given.get(found, default)
    require(type(value) is int and 1 <= value <= LARGEST, found, value, "must be a whole number from 1")
    return int(value)


def flag(given: Given, name: str, default: bool) -> bool:
    value = given.get(name, default)
    require(isinstance(value, bool), name, value, "must be true or false")
    return bool(value)


def number(given: Given, name: str, default: float) -> float:
    value = given.get(name, default)
    require(type(value) in (int, float) and abs(value) <= LARGEST, name, value, "must be a number")
    return float(value)


def dropout(given: Given, name: str, default: float) -> float:
    value = given.get(name, default)
    right = type(value) in (int, float) and 0 <= value < 1
    require(right, name, value, "must be at least 0 and below 1")
    return float(value)


def ratio_of(width: int, n_embd: int) -> float:
    """Return the `model.mlp_ratio` that gives exactly this width, also if the division rounds down."""
    ratio = width / n_embd
    while int(ratio * n_embd) < width:
        ratio = math.nextafter(ratio, math.inf)
    return ratio
