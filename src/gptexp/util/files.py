"""Reading and writing files: whole or absent, never through a link, and no larger than expected.

A file to write is made under a temporary name, flushed and renamed. A file to read may be a stranger's.
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

import yaml

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)

MIB = 2**20
SETTINGS_BYTES = MIB // 4  # a run's config.yaml has about 3,000
TEXT_BYTES = 256 * MIB  # metrics.csv of a million rows has about 100 MiB
JSON_BYTES = 16 * MIB  # provenance.json may hold a long list of uncommitted changes
YAML_DEPTH = 32
POINTER = b"version https://git-lfs"
_YAML: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DiskFullError(OSError):
    """A file could not be written for want of space; the message names it and the bytes needed."""


def user_path(name: str | Path, setting: str) -> Path:
    """The path that a setting names, with ~ resolved. setting: empty where the name stands alone.

    Raises:
        ValueError: no such user's home, or a name that no file can have.
    """
    said = f"{setting}={name}" if setting else f"{name}"
    try:
        path = Path(name).expanduser()
        os.lstat(path)
    except RuntimeError:
        user = Path(name).parts[0]
        raise ValueError(f"{said}: no home folder of {user} is known; write the path out") from None
    except ValueError:
        raise ValueError(f"{said!r}: holds a null character, which no name can") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ValueError(f"{said}: the name is too long for a file") from None
    return path


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


def read_bytes(path: Path, at_most: int) -> bytes:
    """The bytes of a regular file; a pipe or a device is refused without waiting for it.

    Raises:
        OSError: no such file, no regular one, or one of more than `at_most` bytes.
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
    """The UTF-8 text of a regular file, line ends as LF. ValueError: another encoding. OSError: as `read_bytes`."""
    text = read_bytes(path, at_most).decode("utf-8", errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_rows(path: Path, *, strict: bool = False) -> list[dict[str, str]]:
    """The rows of a CSV table with a head. A last line without an end doesn't count: a kill cut it short.

    Raises:
        ValueError, OSError: as `read_text`. csv.Error: strict, and quoted wrongly.
    """
    text = read_text(path)
    return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]), strict=strict))


def read_json(path: Path, at_most: int = JSON_BYTES) -> dict[str, Any]:
    """The JSON object in a file. ValueError: another thing in it. OSError: as `read_bytes`."""
    data = read_bytes(path, at_most)
    require_no_pointer(path, data)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: must hold a JSON object, not {type(value).__name__}")
    return value


def require_no_pointer(path: Path, start: bytes) -> None:
    """Refuse what `git clone` leaves in the place of a large file where git-lfs isn't installed.

    Raises:
        ValueError: the bytes that the file begins with are those of a pointer.
    """
    if start.startswith(POINTER):
        raise ValueError(
            f"{path}: is a pointer of git-lfs, not the file itself; run `git lfs pull` in its repository, or download "
            "the file"
        )


def read_yaml(path: Path, at_most: int = SETTINGS_BYTES) -> Any:
    """What a YAML file of plain values holds; aliases, which let a small file stand for a large one, are refused.

    Raises:
        ValueError: no YAML, nested too deep, or with an alias; the file is named.
        OSError: as `read_bytes`.
    """
    data = read_bytes(path, at_most)
    try:
        _require_plain_yaml(data)
        return yaml.load(data, _YAML)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None


def _require_plain_yaml(data: bytes) -> None:
    depth = 0
    for event in yaml.parse(data, Loader=_YAML):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"line {event.start_mark.line + 1}: *{event.anchor} is an alias; write the value itself")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > YAML_DEPTH:
            raise ValueError(f"line {event.start_mark.line + 1}: nested more than {YAML_DEPTH} deep")


def write_yaml(path: Path, value: object) -> None:
    """A YAML file, whole or as it was, that `read_yaml` takes."""
    text = yaml.dump(value, Dumper=_Plain, sort_keys=False, allow_unicode=True)
    atomic_write(path, text.encode())


class _Plain(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    def ignore_aliases(self, data: object) -> bool:
        return True


def require_no_link(path: Path) -> None:
    """Refuse a link where a file or a folder of a run is written: whoever made the folder chose where it leads.

    Raises:
        OSError: it is a link.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "is a link, and nothing is written through one; delete the link", str(path))


def make_folder(path: Path) -> Path:
    """Make a folder inside a run's folder, if it isn't there. OSError: it is a link."""
    require_no_link(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def append_descriptor(path: Path) -> int:
    """A descriptor that appends to a regular file, made where there is none. OSError: a link, a pipe or a device."""
    require_no_link(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def open_append(path: Path) -> TextIO:
    """A file to append text to, line ends as given. OSError: as `append_descriptor`."""
    return os.fdopen(append_descriptor(path), "a", encoding="utf-8", newline="")


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


def write_json(path: Path, value: object) -> None:
    """A JSON file, whole or absent; strict JSON, so that every reader takes it."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    atomic_write(path, text.encode(errors="backslashreplace"))  # names of files that are no UTF-8, as JSON escapes


def display_path(folder: Path) -> str:
    """A folder as a person wants to read it: relative to the current directory where it lies below it."""
    try:
        return str(folder.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(folder)
