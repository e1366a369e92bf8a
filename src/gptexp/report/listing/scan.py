"""Finds runs and sweeps below a folder from the names and the dates of files; no file is opened."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gptexp.runs.layout import CHECKPOINTS, CONFIG, LOCK, METRICS, NOTE, RESULT, SWEEP

READ = (CONFIG, RESULT, METRICS, NOTE, SWEEP)  # the files that a record is made from
MARKS = {RESULT, METRICS, CHECKPOINTS, LOCK}  # a folder with one of them was a run, even without a CONFIG


@dataclass(slots=True)
class Found:
    """A folder of a run or sweep.

    name: the path from the folder that was searched. sweep: that a run is a job of. problem: why it can't be read.
    changed: when the files that its record is made from last changed, in seconds since 1970. stamps: mtime_ns, ctime_ns
    and size of each; the record is valid as long as they are the same. size: bytes of all files, without those of jobs.
    """

    folder: Path
    name: str
    sweep: Found | None
    is_sweep: bool = False
    changed: float = 0.0
    stamps: dict[str, list[int]] = field(default_factory=dict)
    size: int = 0
    problem: str = ""


def scan(root: Path) -> list[Found]:
    """Return the runs and sweeps in and below a folder, a sweep before its jobs.

    Links to folders are not followed, nor are hidden folders.
    """
    result: list[Found] = []
    linked: set[tuple[int, int]] = set()  # files with several names, such as best.ckpt and last.ckpt, that were counted
    pending: list[tuple[str, Found | None, bool]] = [("", None, False)]
    while pending:
        name, owner, inside = pending.pop()  # inside: all files in the folder belong to the owner
        folder = root / name
        try:
            with os.scandir(folder) as listed:
                entries = {entry.name: entry for entry in listed}
            if not inside and (found := _recognized(folder, name, entries, owner)):
                owner, inside = found, not found.is_sweep
                result.append(found)
        except OSError as error:
            if not inside:
                result.append(Found(folder, name, owner, problem=str(error.strerror)))
            continue
        for entry in entries.values():
            hidden = entry.name[0] == "."
            with suppress(OSError):  # deleted in the meantime, or unreadable
                if not entry.is_dir(follow_symlinks=False):
                    if owner is not None:
                        owner.size += _bytes(entry, linked)
                elif owner is not None or not hidden:
                    pending.append((os.path.join(name, entry.name), owner, inside or hidden))  # noqa: PTH118
    return result


def _recognized(folder: Path, name: str, entries: Mapping[str, os.DirEntry[str]], sweep: Found | None) -> Found | None:
    """Return the run or the sweep that a folder is; None if it is neither."""
    is_sweep = SWEEP in entries and CONFIG not in entries
    if not (is_sweep or CONFIG in entries or (name and MARKS & entries.keys())):
        return None
    files = {file: entries[file].stat() for file in READ if file in entries}
    dates = [file.st_mtime for name, file in files.items() if name != NOTE] or [folder.stat().st_mtime]
    stamps = {name: [file.st_mtime_ns, file.st_ctime_ns, file.st_size] for name, file in files.items()}
    return Found(folder, name, sweep, is_sweep, max(dates), stamps)


def _bytes(entry: os.DirEntry[str], linked: set[tuple[int, int]]) -> int:
    found = entry.stat(follow_symlinks=False)
    if found.st_nlink > 1:
        if (found.st_dev, found.st_ino) in linked:
            return 0
        linked.add((found.st_dev, found.st_ino))
    return found.st_size
