"""digests.jsonl: eight bytes for each tensor of a logged step, by which two runs are compared (no torch).

The first line names the format. Each further line is a step; it has the names of its tensors if they differ from those
of the line before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gptexp.runs.layout import DIGESTS
from gptexp.util.errors import RunError
from gptexp.util.files import atomic_write, flush, open_append, read_text

HEAD = {"format": "gptexp digests", "version": 1}
DIGITS = 16  # hexadecimal digits of a digest


@dataclass(frozen=True)
class StepDigests:
    """The digests after a step, by the names of the tensors in their order. Step 0 has the initial weights."""

    step: int
    tensors: dict[str, str]


class DigestFile:
    """Appends steps to digests.jsonl; a resumed run first drops those that it repeats."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self.path = folder / DIGESTS
        self._names: list[str] = []
        kept = [found for found in read_digests(folder) if found.step <= first_step] if first_step else []
        atomic_write(self.path, "".join([f"{json.dumps(HEAD)}\n", *map(self._line, kept)]).encode())

    def append(self, step: int, tensors: Mapping[str, str]) -> None:
        """Append a step and flush it to disk, so that no checkpoint is ahead of the file."""
        with open_append(self.path) as file:
            file.write(self._line(StepDigests(step, dict(tensors))))
        flush(self.path)

    def _line(self, found: StepDigests) -> str:
        names = list(found.tensors)
        new = {} if names == self._names else {"tensors": names}
        self._names = names
        return json.dumps({"step": found.step, **new, "digests": "".join(found.tensors.values())}) + "\n"


def read_digests(folder: Path) -> list[StepDigests]:
    """Return the steps of a run; [] without a file. An incomplete last line, left by a kill, is dropped.

    Raises:
        RunError: the file is damaged, or of a later version.
    """
    path = folder / DIGESTS
    try:
        lines = read_text(path).split("\n")[:-1]
    except FileNotFoundError:
        return []
    try:
        head = json.loads(lines[0]) if lines else HEAD
        if head != HEAD:
            raise RunError(f"{path}: not a file of digests that this version of gptexp reads")
        return list(_steps(lines[1:]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{path}: damaged ({type(error).__name__}: {str(error)[:100]})") from None


def _steps(lines: list[str]) -> Iterator[StepDigests]:
    names: list[str] = []
    for line in lines:
        stored = json.loads(line)
        names = [str(name) for name in stored.get("tensors", names)]
        text, step = stored["digests"], stored["step"]
        if type(step) is not int or len(text) != DIGITS * len(names):
            raise ValueError(f"step {str(step)[:20]} has another number of digests than tensors")
        found = [text[i : i + DIGITS] for i in range(0, len(text), DIGITS)]
        yield StepDigests(step, dict(zip(names, found, strict=True)))
