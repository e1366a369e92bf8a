"""samples.md: the text that a model generated at each validation (no torch)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gptexp.runs.layout import SAMPLES
from gptexp.util.files import read_text

_HEAD = re.compile(r"^## step ([0-9]{1,18})\n\n(`{4,})text\n", re.M)


def section(step: int, text: str) -> str:
    """Return a step's text as Markdown, inside a fence longer than any run of backticks in the text."""
    longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
    fence = "`" * max(4, 1 + longest)
    return f"## step {step}\n\n{fence}text\n{text}\n{fence}\n\n"


def sections(document: str) -> Iterator[tuple[int, str]]:
    """Yield (step, text) of every complete section, in linear time."""
    place, unclosed = 0, set()
    while found := _HEAD.search(document, place):
        place, fence = found.end(), found[2]
        end = -1 if fence in unclosed else document.find(f"\n{fence}\n\n", place)
        if end < 0:
            unclosed.add(fence)  # no later section closes it either, so it is not searched again
            continue
        yield int(found[1]), document[place:end]
        place = end + len(fence) + 3


def read(folder: Path) -> list[tuple[int, str]]:
    """Return the sections of a run's samples.md; an empty list without the file.

    Raises:
        OSError: the file is unreadable or not a regular file.
    """
    try:
        return list(sections(read_text(folder / SAMPLES, errors="replace")))  # a kill may split a character
    except FileNotFoundError:
        return []
