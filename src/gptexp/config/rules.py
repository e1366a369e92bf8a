"""Checks of settings, which raise errors in one form: setting, value and remedy."""

from __future__ import annotations

LARGEST = 10**15  # refuses infinity; no count of steps, bytes or tokens is larger


def require(holds: bool, setting: str, value: object, remedy: str) -> None:
    """Raise a ValueError that names the setting, its value and the remedy, unless the rule holds."""
    if not holds:
        raise ValueError(f"{setting}={'null' if value is None else value}: {remedy}")


def require_at_least(minimum: float, group: str, settings: object, *names: str) -> None:
    """Check that numeric settings of a group are at least `minimum`; None is accepted."""
    for name in names:
        value = getattr(settings, name)
        least, most = value is None or value >= minimum, value is None or value <= LARGEST
        require(least, f"{group}.{name}", value, f"must be at least {minimum}")
        require(most, f"{group}.{name}", value, f"must be at most {LARGEST:,}")


def require_fraction(group: str, settings: object, *names: str) -> None:
    """Check settings that are fractions or probabilities: 0 <= value < 1."""
    for name in names:
        value = getattr(settings, name)
        require(0 <= value < 1, f"{group}.{name}", value, "must be at least 0 and below 1")


def require_encoding(setting: str, value: str) -> None:
    """Refuse an encoding that does not decode bytes to text, such as base64 or zip."""
    try:
        "".encode(value)
    except (LookupError, ValueError):  # unknown, not a text encoding, or a name with a null character
        raise ValueError(f"{setting}={value}: unknown text encoding; try utf-8, gb18030 or latin-1") from None


def nearest_multiples(value: int, base: int) -> str:
    """Return the positive multiples of `base` just below and above `value`, as text."""
    below = value // base * base
    return " or ".join(str(candidate) for candidate in (below, below + base) if candidate > 0)
