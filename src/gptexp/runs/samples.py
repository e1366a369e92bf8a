"""samples.md: what a model wrote, by step. Written beside training, read by comparisons (no torch)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gptexp.util.files import read_text

FILE = "samples.md"

_HEAD = re.compile(r"^## step ([0-9]{1,18})\n\n(`{4,})text\n", re.M)


def section(step: int, text: str) -> str:
    """A step's text as Markdown; its fence is longer than any run of backticks in the text, which can't close it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(4, 1 + longest)
    return f"## step {step}\n\n{fence}text\n{text}\n{fence}\n\n"


def sections(document: str) -> Iterator[tuple[int, str]]:
    """(step, text) of every section; what a kill left half-written is none. Takes time in proportion to the length."""
    place, never_closed = 0, set()
    while found := _HEAD.search(document, place):
        place, fence = found.end(), found[2]
        end = -1 if fence in never_closed else document.find(f"\n{fence}\n\n", place)
        if end < 0:
            never_closed.add(fence)  # not below either, so it isn't looked for again
            continue
        yield int(found[1]), document[place:end]
        place = end + len(fence) + 3


def read(folder: Path) -> list[tuple[int, str]]:
    """The sections of a run's samples.md; none where there is no file.

    Raises:
        OSError: it is no regular file, or can't be read.
    """
    try:
        return list(sections(read_text(folder / FILE, errors="replace")))  # a kill may cut a character in two
    except FileNotFoundError:
        return []
