"""Finds runs and sweeps below a folder from the names and the dates of files; no file is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gptexp.runs.layout import CHECKPOINTS, CONFIG, LOCK, METRICS, NOTE, RESULT, SWEEP

READ = (CONFIG, RESULT, METRICS, NOTE, SWEEP)  # the files that a record is made from
MARKS = {RESULT, METRICS, CHECKPOINTS, LOCK}  # a folder with one of them was a run, even without a CONFIG
Stamp = tuple[str, int, int, int]  # name, mtime_ns, ctime_ns, size


@dataclass(frozen=True, slots=True)
class Found:
    """A folder of a run or sweep.

    name: the path from the folder that was searched. stamps: of the files that its record is made from, which is valid
    only as long as they are the same.
    size: bytes of all files, without those of a sweep's jobs. changed: when the record's files last changed (seconds
    since 1970). sweep: the folder of the sweep that a run is a job of. problem: why the folder can't be read.
    """

    folder: Path
    name: str
    is_sweep: bool = False
    stamps: tuple[Stamp, ...] = ()
    size: int = 0
    changed: float = 0.0
    sweep: Path | None = None
    problem: str = ""


def scan(root: Path) -> Iterator[Found]:
    """Yield the runs and sweeps in and below a folder. Links to folders and hidden folders are not followed."""
    pending: list[tuple[str, Path | None]] = [(".", None)]
    seen: set[tuple[int, int]] = set()
    while pending:
        name, sweep = pending.pop()
        folder = root / name
        try:
            with os.scandir(folder) as listed:
                entries = {entry.name: entry for entry in listed}
        except OSError as error:
            yield Found(folder, name, sweep=sweep, problem=str(error.strerror))
            continue
        is_run = CONFIG in entries or (name != "." and SWEEP not in entries and bool(MARKS & entries.keys()))
        if is_run or SWEEP in entries:
            stamps = tuple(stamp for file in READ if file in entries and (stamp := _stamp(entries[file])))
            changed = max((stamp[1] for stamp in stamps if stamp[0] != NOTE), default=0) / 1e9
            size = _size(entries.values(), seen, whole=is_run)
            yield Found(folder, name, not is_run, stamps, size, changed or _changed(folder), sweep)
        if not is_run:
            inside = [entry.name for entry in entries.values() if entry.name[0] != "." and _is_folder(entry)]
            pending += [(os.path.normpath(f"{name}/{one}"), folder if SWEEP in entries else None) for one in inside]


def _size(entries: Iterable[os.DirEntry[str]], seen: set[tuple[int, int]], *, whole: bool) -> int:
    """Return the bytes of these files, and of hidden folders or (whole) of all folders.

    seen: files with several names that were counted, such as best.ckpt and last.ckpt of one step.
    """
    size, pending = 0, list(entries)
    while pending:
        entry = pending.pop()
        try:
            if entry.is_dir(follow_symlinks=False):
                if whole or entry.name[0] == ".":
                    with os.scandir(entry.path) as listed:
                        pending += listed
                continue
            found = entry.stat(follow_symlinks=False)
        except OSError:  # deleted in the meantime, or unreadable
            continue
        if found.st_nlink > 1:
            file = (found.st_dev, found.st_ino)
            if file in seen:
                continue
            seen.add(file)
        size += found.st_size
    return size


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _stamp(entry: os.DirEntry[str]) -> Stamp | None:
    try:
        found = entry.stat()
    except OSError:
        return None
    return entry.name, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _changed(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0
