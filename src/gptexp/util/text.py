"""Formatting of numbers, values and messages for the user (no torch)."""

from __future__ import annotations

import re
from unicodedata import category


def quantity(value: float) -> str:
    """Return a number with at most four significant characters: 1234567 -> 1.2 M."""
    steps: list[tuple[float, str]] = [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, "k")]
    for size, letter in steps:
        if value >= size:
            return f"{value / size:.{0 if value >= 10 * size else 1}f}{letter}"
    return f"{value:.0f}"


def clock(seconds: float) -> str:
    """Return a duration: 75 -> 1:15, 4000 -> 1:06:40."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def printable(text: str) -> str:
    """Return untrusted text with escapes for characters that move the cursor, colour, reorder or hide text.

    Spaces of any width are kept, such as the U+3000 that begins a Chinese paragraph.
    """
    return "".join(c if c.isprintable() or category(c) == "Zs" else c.encode("unicode_escape").decode() for c in text)


def visible(text: str) -> str:
    """As `printable`, but line breaks and tabs are kept."""
    return "".join(character if character in "\n\t" else printable(character) for character in text)


def literal(text: str) -> str:
    """Return any text as characters and entities that neither Markdown nor HTML takes for markup."""
    return "".join(c if c.isalnum() or c in " _-.,+" else f"&#{ord(c)};" for c in text)


def without_passwords(text: str) -> str:
    """Return a text in which addresses have lost their user names and passwords."""
    return re.sub(r"//[^/@\s]+@", "//…@", text)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; without a message, the name of its type."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def typed_value(value: object) -> str:
    """Return a setting as typed on the command line: null, true, 0.001, rope."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return printable(str(value))


def install_extra(extra: str) -> str:
    """Return the command that installs an extra; gptexp is not on PyPI."""
    return f'pip install -e ".[{extra}]" in the checkout of gptexp'
