"""Which files a path, a folder or a glob stands for: each real file once, and nothing missing in silence."""

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
    """Files that a path, a folder (all its *.txt) or a glob stands for, book 2 before book 10.

    What exists under exactly this name is meant literally, brackets and all. Hidden files and folders (such as the
    ._* that macOS leaves) are passed over. Links are followed; a file that several names lead to counts once.

    Raises:
        ValueError: a folder that can't be read, a link that leads nowhere, a pipe, a name that can't be one.
    """
    literal = user_path(path, setting)
    try:
        files = [name for name in _names(literal) if _is_file(name)]
    except OSError as error:
        raise ValueError(
            f"{setting}={path}: {error.filename}: {error.strerror or error}; "
            "make it readable, or name the other files by a glob that leaves it out"
        ) from None
    return [Path(name) for name in _distinct(files)]


def natural_key(name: str) -> Key:
    """Sort key by which numbers in names count as numbers."""
    folder, base = os.path.split(name)
    return [*_key_of_folder(folder), _numbers(base)], name


@lru_cache(maxsize=1024)
def _key_of_folder(folder: str) -> list[list[str | int]]:
    return [_numbers(part) for part in Path(folder).parts]


def _numbers(name: str) -> list[str | int]:
    # Splitting by a group alternates text and digits, so keys compare text with text, number with number.
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def _names(literal: Path) -> Iterator[str]:
    if literal.is_dir():
        for folder in _folders(str(literal)):
            yield from (entry.path for entry in _entries(folder) if entry.name.lower().endswith(".txt"))
    elif os.path.lexists(literal):
        yield str(literal)
    else:
        yield from _expand("", literal.parts)


def _expand(base: str, parts: tuple[str, ...]) -> Iterator[str]:
    """Names that a pattern's parts match below a folder: as `glob`, which passes over what it can't read."""
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
    """A folder and those below it, hidden ones left out; each real one once, by its own name rather than a link's.

    A link to a folder around the first one is left out: it would bring in what lies beside it.
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
    """False for a folder. OSError: a link that leads nowhere. ValueError: neither a file nor a folder."""
    mode = os.stat(name).st_mode  # noqa: PTH116
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ValueError(f"{name}: is no regular file, and a text is read several times; write it to a file first")
    return stat.S_ISREG(mode)


def _distinct(names: Iterable[str]) -> list[str]:
    """In natural order; of several names of a file its own, or else the first."""
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
