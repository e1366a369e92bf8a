"""Atomic writing of files, and bounded reading of untrusted files.

A file is written under a temporary name, flushed and renamed, and never through a link.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

_DISK_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)

MIB = 2**20
TEXT_BYTES = 256 * MIB  # metrics.csv of a million rows has about 100 MiB
JSON_BYTES = 16 * MIB  # provenance.json may contain a long diff
LFS_POINTER = b"version https://git-lfs"


class DiskFullError(OSError):
    """The disk is full; the message names the file and the bytes needed."""


def user_path(name: str | Path, setting: str) -> Path:
    """Return the path that a setting names, with ~ expanded.

    setting: for error messages; empty for an argument without a setting.

    Raises:
        ValueError: the home folder is unknown, or no file can have this name.
    """
    given = f"{setting}={name}" if setting else f"{name}"
    try:
        path = Path(name).expanduser()
        os.lstat(path)
    except RuntimeError:
        user = Path(name).parts[0]
        raise ValueError(f"{given}: the home folder of {user} is unknown; give the full path") from None
    except ValueError:
        raise ValueError(f"{given!r}: a path can't contain a null character") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ValueError(f"{given}: the file name is too long") from None
    return path


@contextmanager
def atomic_path(path: str | Path, needs: int | None = None) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` on success, remove it on any error.

    Parent folders are created. needs: bytes of the finished file, if known, for the error message.

    Raises:
        DiskFullError: the disk is full.
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
        if isinstance(error, OSError) and not isinstance(error, DiskFullError) and error.errno in _DISK_FULL:
            raise _disk_full(path, error.errno, needs, written) from error
        raise
    fsync_dir(path.parent)


def atomic_write(path: str | Path, data: bytes) -> None:
    """Replace the content of a file atomically. DiskFullError: the disk is full."""
    with atomic_path(path, needs=len(data)) as temporary, open_new(temporary) as file:
        file.write(data)


def open_new(path: Path) -> BinaryIO:
    """Open a file for writing. All files that must be complete or absent are opened here."""
    return path.open("wb")


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` on success, remove it on any error.

    Raises:
        FileExistsError: `path` exists and is not an empty folder.
    """
    require_free_folder(Path(path))
    path = Path(path).resolve()  # `.` has no name
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        temporary.mkdir()
        yield temporary
        fsync_dir(temporary)
        if path.is_dir():
            path.rmdir()  # fails if it is no longer empty
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_dir(path.parent)


def require_free_folder(path: Path) -> None:
    """Raise FileExistsError unless the path is absent or an empty folder."""
    if path.is_dir() and not path.is_symlink():
        if any(path.iterdir()):
            raise FileExistsError(errno.ENOTEMPTY, "not empty, and never overwritten; choose another folder", str(path))
    elif path.exists() or path.is_symlink():
        raise FileExistsError(errno.EEXIST, "not a folder; choose another name", str(path))


def read_bytes(path: Path, at_most: int) -> bytes:
    """Return the bytes of a regular file; a pipe or a device is refused without waiting.

    Raises:
        OSError: the file is missing, not a regular file, or larger than `at_most` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        data = file.read(at_most + 1) if os.fstat(descriptor).st_size <= at_most else None
    if data is None or len(data) > at_most:
        raise OSError(errno.EFBIG, f"has more than {at_most:,} bytes", str(path))
    return data


def read_text(path: Path, at_most: int = TEXT_BYTES, errors: str = "strict") -> str:
    """Return the UTF-8 text of a file with LF line ends. ValueError: another encoding. OSError: as `read_bytes`."""
    text = read_bytes(path, at_most).decode("utf-8", errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_rows(path: Path, *, strict: bool = False) -> list[dict[str, str]]:
    """Return the rows of a CSV file with a header. An incomplete last line, left by a kill, is dropped.

    Raises:
        ValueError, OSError: as `read_text`.
        csv.Error: the quoting is wrong, and `strict` is set.
    """
    text = read_text(path)
    return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]), strict=strict))


def read_json(path: Path, at_most: int = JSON_BYTES) -> dict[str, Any]:
    """Return the JSON object in a file. ValueError: other content. OSError: as `read_bytes`."""
    data = read_bytes(path, at_most)
    require_no_pointer(path, data)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: must contain a JSON object, not {type(value).__name__}")
    return value


def require_no_pointer(path: Path, start: bytes) -> None:
    """Refuse the pointer that `git clone` leaves in place of a large file if git-lfs is not installed.

    start: the first bytes of the file.

    Raises:
        ValueError: the file is a pointer.
    """
    if start.startswith(LFS_POINTER):
        raise ValueError(
            f"{path}: is a git-lfs pointer, not the file; run `git lfs pull` in its repository, or download the file"
        )


def require_no_link(path: Path) -> None:
    """Refuse to write through a link, which an untrusted run folder may contain.

    Raises:
        OSError: the path is a link.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "is a link, and gptexp does not write through links; delete the link", str(path))


def make_folder(path: Path) -> Path:
    """Create a folder inside a run folder if it is absent, and return it. OSError: the path is a link."""
    require_no_link(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def append_descriptor(path: Path) -> int:
    """Return a descriptor that appends to a regular file. OSError: the path is a link, a pipe or a device."""
    require_no_link(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def open_append(path: Path) -> TextIO:
    """Open a file for appending text, with line ends unchanged. OSError: as `append_descriptor`."""
    return os.fdopen(append_descriptor(path), "a", encoding="utf-8", newline="")


def link(source: Path, target: Path) -> None:
    """Hard-link `source` as `target`, replacing it; copy the file if the file system has no links."""
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
    """Remove the temporary files of a killed process. Only for a folder that no other process writes to."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def fsync_dir(folder: str | Path) -> None:
    """Make renames in a folder survive a power failure; no effect on Windows, which can't open folders."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems refuse it; the data is already flushed
    finally:
        os.close(descriptor)


def flush(path: Path) -> None:
    """Make the content of a closed file survive a power failure."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _disk_full(path: Path, code: int | None, needs: int | None, written: int) -> DiskFullError:
    size = f"{needs:,} bytes" if needs is not None else f"more than {written:,} bytes"
    free = shutil.disk_usage(path.parent).free
    return DiskFullError(code, f"{path}: the disk is full; the file needs {size}, {free:,} are free")


def write_json(path: Path, value: object) -> None:
    """Write strict JSON atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    atomic_write(path, text.encode(errors="backslashreplace"))  # file names that are not UTF-8


def display_path(folder: Path) -> str:
    """Return a path for messages: relative if it is below the current directory."""
    try:
        return str(folder.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(folder)
