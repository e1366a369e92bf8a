"""Writing files so that they are either whole or absent (law 2): temporary name, flush, rename."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class DiskFullError(OSError):
    """A file could not be written for want of space; the message names it and the bytes needed."""


@contextmanager
def atomic_path(path: str | Path, needs: int | None = None) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it becomes `path`, on any error it is removed.

    Folders on the way are made. needs: size of the finished file in bytes, for the message when
    the disk is full (OSError); unknown: what was written until then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
    except BaseException as error:
        written = temporary.stat().st_size if temporary.exists() else 0
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, DiskFullError) and error.errno in _FULL:
            raise _disk_full(path, error.errno, needs, written) from error
        raise
    fsync_dir(path.parent)


def atomic_write(path: str | Path, data: bytes) -> None:
    """Replace the file by these bytes, or leave it as it was. OSError names path and size when the disk is full."""
    with atomic_path(path, needs=len(data)) as temporary, open_new(temporary) as file:
        file.write(data)


def open_new(path: Path) -> BinaryIO:
    """A file to write from its beginning. Every file that law 2 is about is opened here."""
    return path.open("wb")


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new folder beside `path`; on success it becomes `path`, on any error it goes with all that is in it.

    Raises:
        FileExistsError: something other than an empty folder is there, which is never overwritten.
    """
    require_free_folder(Path(path))
    path = Path(path).resolve()  # `.` has no name beside which another could stand
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        temporary.mkdir()
        yield temporary
        fsync_dir(temporary)
        if path.is_dir():
            path.rmdir()  # empty; should it have been filled meanwhile, this fails
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_dir(path.parent)


def require_free_folder(path: Path) -> None:
    """Raise FileExistsError unless nothing, or an empty folder, is there."""
    if path.is_dir() and not path.is_symlink():
        if any(path.iterdir()):
            raise FileExistsError(errno.ENOTEMPTY, "not empty, and never overwritten; choose another folder", str(path))
    elif path.exists() or path.is_symlink():
        raise FileExistsError(errno.EEXIST, "not a folder; choose another name", str(path))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. ValueError: another thing in it. OSError: no such file."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: must hold a JSON object, not {type(value).__name__}")
    return value


def link(source: Path, target: Path) -> None:
    """Give a file a second name, replacing what had it; a copy where the file system has no links."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        os.link(source, temporary)
    except OSError:
        with atomic_path(target, needs=source.stat().st_size) as copy, source.open("rb") as old, open_new(copy) as new:
            shutil.copyfileobj(old, new)
        return
    temporary.replace(target)
    fsync_dir(target.parent)


def sweep_leftovers(folder: Path) -> None:
    """Remove what a killed process left half-written. Only for a folder that this process alone writes to."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def fsync_dir(folder: str | Path) -> None:
    """Make renames in a folder survive a power cut; where a folder can't be opened (Windows), nothing happens."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems refuse it; the data itself is already flushed
    finally:
        os.close(descriptor)


def flush(path: Path) -> None:
    """Make the bytes of a closed file survive a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _disk_full(path: Path, code: int | None, needs: int | None, written: int) -> DiskFullError:
    size = f"{needs:,} bytes are needed" if needs is not None else f"more than {written:,} bytes are needed"
    free = shutil.disk_usage(path.parent).free
    return DiskFullError(code, f"no space to write {path}: {size}, {free:,} are free on that disk")
