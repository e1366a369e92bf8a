"""Numbers and values as a person reads them (no torch)."""

from __future__ import annotations

from unicodedata import category


def quantity(value: float) -> str:
    """1234567 -> 1.2 M, at most four significant characters."""
    steps: list[tuple[float, str]] = [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, "k")]
    for size, letter in steps:
        if value >= size:
            return f"{value / size:.{0 if value >= 10 * size else 1}f}{letter}"
    return f"{value:.0f}"


def clock(seconds: float) -> str:
    """75 -> 1:15, 4000 -> 1:06:40."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def plain(text: str) -> str:
    """Text that is safe to print: what would move the cursor, colour, reorder or hide something becomes its escape.

    Spaces of any width, such as the U+3000 that begins a Chinese paragraph, are shown as they are.
    """
    return "".join(c if c.isprintable() or category(c) == "Zs" else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """The first line that an error says; its kind where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def shown(value: object) -> str:
    """A setting as it is typed on the command line: null, true, 0.001, rope."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return plain(str(value))


def install_extra(extra: str) -> str:
    """How the packages of an extra are installed; gptexp itself isn't on PyPI."""
    return f'pip install -e ".[{extra}]" in the checkout of gptexp'
