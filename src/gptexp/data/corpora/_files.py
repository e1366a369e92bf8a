"""Find the files for a path, a folder or a glob: each file once, and an error for what can't be read."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from functools import lru_cache
from glob import has_magic
from pathlib import Path

from gptexp.util.files import user_path

Key = tuple[list[list[str | int]], str]


def find_files(path: str, setting: str = "data.path") -> list[Path]:
    """Return the files for a path, a folder (all its *.txt) or a glob, in natural order: book 2 before book 10.

    A name that exists is taken literally, even with brackets. Hidden files and folders, such as the ._* of macOS, are
    skipped. Links are followed; a file with several names is returned once.

    Raises:
        ValueError: an unreadable folder, a broken link, a pipe, an invalid name.
    """
    literal = user_path(path, setting)
    try:
        files = [name for name in _names(literal) if _is_file(name)]
    except OSError as error:
        raise ValueError(
            f"{setting}={path}: {error.filename}: {error.strerror or error}; "
            "make it readable, or give a glob that excludes it"
        ) from None
    return [Path(name) for name in _distinct(files)]


def natural_key(name: str) -> Key:
    """Sort key that compares numbers in names by value."""
    folder, base = os.path.split(name)
    return [*_key_of_folder(folder), _numbers(base)], name


@lru_cache(maxsize=1024)
def _key_of_folder(folder: str) -> list[list[str | int]]:
    return [_numbers(part) for part in Path(folder).parts]


def _numbers(name: str) -> list[str | int]:
    # re.split by a group alternates text and digits, so text is compared with text and number with number.
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _names(literal: Path) -> Iterator[str]:
    if literal.is_dir():
        for folder in _folders(str(literal)):
            yield from (entry.path for entry in _entries(folder) if entry.name.lower().endswith(".txt"))
    elif os.path.lexists(literal):
        yield str(literal)
    else:
        yield from _expand("", literal.parts)


def _expand(base: str, parts: tuple[str, ...]) -> Iterator[str]:
    """Yield the names below a folder that match the parts of a pattern; an unreadable folder is an error."""
    if not parts:
        yield base
        return
    first, rest = parts[0], parts[1:]
    if not has_magic(first):
        if os.path.lexists(name := os.path.join(base, first)):  # noqa: PTH118 (many names, and no Path for each)
            yield from _expand(name, rest)
    elif os.path.isdir(base or "."):  # noqa: PTH112
        if first == "**":
            for folder in _folders(base or "."):
                yield from _expand(folder, rest or ("*",))
        else:
            for entry in _entries(base or ".", hidden=first.startswith(".")):
                if fnmatch(entry.name, first):
                    yield from _expand(entry.path, rest)


def _folders(top: str) -> Iterator[str]:
    """Yield a folder and all folders below it except hidden ones, each once and preferably not by a link.

    A link to a folder that contains the first one is skipped, because it would add files outside of it.
    """
    waiting, links, seen = [top], list[str](), set[str]()
    above = {str(folder) for folder in Path(os.path.realpath(top)).parents}
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(links.index(min(links, key=natural_key)))
        real = os.path.realpath(folder)
        if real in seen or real in above:
            continue
        seen.add(real)
        yield folder
        for entry in _entries(folder):
            if entry.is_symlink():
                links += [entry.path] if os.path.isdir(entry.path) else []  # noqa: PTH112
            elif entry.is_dir():
                waiting.append(entry.path)


def _entries(folder: str, hidden: bool = False) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if hidden or not entry.name.startswith(".")]


def _is_file(name: str) -> bool:
    """False for a folder. OSError: a broken link. ValueError: neither a file nor a folder."""
    mode = os.stat(name).st_mode  # noqa: PTH116
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ValueError(f"{name}: is not a regular file, and a text is read several times; write it to a file first")
    return stat.S_ISREG(mode)


def _distinct(names: Iterable[str]) -> list[str]:
    """Return names in natural order. Of several names of a file, the one without links is kept, or else the first."""
    real_folder = lru_cache(maxsize=None)(os.path.realpath)
    order = sorted({name.removeprefix(f".{os.sep}") for name in names}, key=natural_key)
    chosen: dict[str, str] = {}
    for name in order:
        folder, base = os.path.split(name)
        linked = os.path.islink(name)  # noqa: PTH114
        real = os.path.realpath(name) if linked else os.path.join(real_folder(folder), base)  # noqa: PTH118
        if real not in chosen or os.path.abspath(name) == real:  # noqa: PTH100
            chosen[real] = name
    kept = set(chosen.values())
    return [name for name in order if name in kept]
