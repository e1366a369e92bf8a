"""samples.md: what a model wrote, by step. Written beside training, read by comparisons (no torch)."""

from __future__ import annotations

import re
from collections.abc import Iterator

FILE = "samples.md"

_SECTION = re.compile(r"^## step (\d+)\n\n(`{4,})text\n(.*?)\n\2\n\n", re.S | re.M)


def section(step: int, text: str) -> str:
    """A step's text as Markdown; its fence is longer than any run of backticks in the text, which can't close it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(4, 1 + longest)
    return f"## step {step}\n\n{fence}text\n{text}\n{fence}\n\n"


def sections(document: str) -> Iterator[tuple[int, str]]:
    """(step, text) of every section; what a kill left half-written is none."""
    yield from ((int(found[1]), found[3]) for found in _SECTION.finditer(document))
