"""The few forms that a rule about a setting takes, so that every refusal reads alike."""

from __future__ import annotations

LARGEST = 10**15  # no count of steps, bytes or tokens is larger; infinity is


def require(holds: bool, setting: str, value: object, remedy: str) -> None:
    """Raise the ValueError that a user reads: the setting, its value, what would be right."""
    if not holds:
        raise ValueError(f"{setting}={'null' if value is None else value}: {remedy}")


def require_at_least(minimum: float, group: str, settings: object, *names: str) -> None:
    """Check numeric settings of a group against a common minimum; None counts as not given."""
    for name in names:
        value = getattr(settings, name)
        least, most = value is None or value >= minimum, value is None or value <= LARGEST
        require(least, f"{group}.{name}", value, f"must be at least {minimum}")
        require(most, f"{group}.{name}", value, f"must be at most {LARGEST:,}")


def require_fraction(group: str, settings: object, *names: str) -> None:
    """Check settings that are shares or probabilities: 0 <= value < 1."""
    for name in names:
        value = getattr(settings, name)
        require(0 <= value < 1, f"{group}.{name}", value, "must be at least 0 and below 1")


def require_encoding(setting: str, value: str) -> None:
    """Refuse what Python can't decode a text by; base64, zip and the like are codecs, but of bytes."""
    try:
        "".encode(value)
    except (LookupError, ValueError):  # unknown or no text encoding; refused by the codec itself, or a null character
        raise ValueError(f"{setting}={value}: no such text encoding; try utf-8, gb18030 or latin-1") from None


def nearest_multiples(value: int, base: int) -> str:
    below = value // base * base
    return " or ".join(str(candidate) for candidate in (below, below + base) if candidate > 0)
