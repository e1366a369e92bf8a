"""ledger.jsonl: every judged idea, one JSON object per line. The file only grows; writing takes its lock (no torch)."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from filelock import FileLock

from gptexp.studies.online import FDR, FWER, Rules
from gptexp.util.errors import RunError
from gptexp.util.files import append_descriptor, read_text, require_no_link

LEDGER = "ledger.jsonl"
KEPT = "keep"


def now() -> str:
    """Return the local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """An idea of a line: written when its test starts, with verdict None, and again with the outcome.

    line: identity of the line's first base. base: number of its base in the line, from 0; base_identity and code say
    which settings and which code. idea: identity of the settings, or the commit. became: identity of a base that adopts
    the idea. t: number of the idea in the line, from 1. kept: ideas kept before the first run of the base. scale:
    expected standard deviation of a gain. gains: score of the base minus score of the idea, by pair. effect, low, high:
    the idea's score minus the base's, with a 95% interval.
    """

    line: str
    rules: Rules
    metric: str
    base: int
    base_identity: str
    base_text: str
    code: str
    idea: str
    idea_text: str
    became: str
    t: int
    kept: int
    scale: float
    time: str = field(default_factory=now)
    verdict: str | None = None
    gains: list[float] = field(default_factory=list)
    evidence: float | None = None
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    needed: int | None = None

    @property
    def level(self) -> float:
        return self.rules.level(self.t, self.kept)

    @property
    def threshold(self) -> float:
        """Evidence at which the idea is kept."""
        return 1 / self.level

    def is_same_idea(self, other: Entry) -> bool:
        return (self.line, self.base, self.idea) == (other.line, other.base, other.idea)

    def as_plain(self) -> dict[str, Any]:
        """Return the content of the line in the file."""
        return {**asdict(self), "threshold": self.threshold, "pairs": len(self.gains)}


def read(path: Path) -> list[Entry]:
    """Return the entries, oldest first; an incomplete last line, left by a kill, is not one.

    Raises:
        RunError: a line is damaged.
    """
    try:
        text = read_text(path)
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise RunError(f"{path}: is not UTF-8 text ({error}); restore it from a backup") from None
    lines = text[: text.rfind("\n") + 1].splitlines()
    return [_entry(path, number, line) for number, line in enumerate(lines, 1)]


def _entry(path: Path, number: int, line: str) -> Entry:
    try:
        stored = json.loads(line)
        known = {f.name: stored[f.name] for f in fields(Entry) if f.name in stored}
        entry = Entry(**{**known, "rules": Rules(**stored["rules"])})
        if (
            entry.line.isalnum()
            and entry.rules.control in (FDR, FWER)
            and 0 < entry.level < 1
            and entry.scale >= 0
            and entry.t > 0
        ):
            return entry
        reason = "a value is out of range"
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise RunError(f"{path}: line {number} is damaged ({reason}); restore the file from a backup")


def append(path: Path, entry: Entry) -> None:
    """Append an entry and flush it to the disk."""
    lock = path.with_name(f".{path.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    require_no_link(lock)
    with FileLock(lock):
        _drop_incomplete_line(path)
        descriptor = append_descriptor(path)
        try:
            os.write(descriptor, (json.dumps(entry.as_plain(), ensure_ascii=False) + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _drop_incomplete_line(path: Path) -> None:
    require_no_link(path)
    if path.is_file():
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


# ---------------------------------------------------------------------------------- what the entries say


def verdict_of(entries: list[Entry], idea: Entry) -> Entry | None:
    """Return the stored outcome of an idea; None if it has none."""
    return next((entry for entry in entries if entry.verdict and entry.is_same_idea(idea)), None)


def line_of(entries: list[Entry], base_identity: str) -> str | None:
    """Return the newest line that has this base, or that kept an idea which becomes this base; None without one."""
    for entry in reversed(entries):
        if base_identity == entry.base_identity or (entry.verdict == KEPT and entry.became == base_identity):
            return entry.line
    return None


def unfinished(entries: list[Entry]) -> list[Entry]:
    """Return the ideas that were started and have no outcome."""
    return [entry for entry in entries if not entry.verdict and verdict_of(entries, entry) is None]
