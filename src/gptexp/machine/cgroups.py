"""What a container or a scheduler's memory limit leaves: Linux control groups, version 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

UNLIMITED = 2**62

# Folder of the memory controller, files of limit and usage, and what the kernel gives back before it refuses memory.
# Version 1 counts a group's children in the fields that begin with total_, version 2 in all of them.
_VERSION_1 = (
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)
_VERSION_2 = ("sys/fs/cgroup", "memory.max", "memory.current", ("inactive_file", "active_file", "slab_reclaimable"))


def memory_room(root: Path = Path("/")) -> int:
    """Bytes that this process can still allocate under the limits of its control group and of those around it.

    The page cache counts as free: a text that was read fills it, and the kernel drops it where memory is wanted.
    """
    return min((_room(folder, version) for folder, version in _groups(root)), default=UNLIMITED)


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str, tuple[str, ...]]]]:
    """This process's group and the groups around it, as far as they are mounted.

    A container sees its own group at the mount itself, while /proc may name the group by its path on the host.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number != "0" and "memory" not in controllers.split(","):
            continue
        version = _VERSION_2 if number == "0" else _VERSION_1
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts) + 1) if ".." not in parts else [0]:
            yield root.joinpath(version[0], *parts[:depth]), version


def _room(folder: Path, version: tuple[str, str, str, tuple[str, ...]]) -> int:
    _, limit, used, reclaimable = version
    try:
        room = int(_read(folder / limit)) - int(_read(folder / used))  # "max" where there is no limit
    except ValueError:
        return UNLIMITED
    counts = dict(line.split(" ", 1) for line in _read(folder / "memory.stat").splitlines())
    return max(0, room + sum(int(counts.get(name, 0)) for name in reclaimable))


def _read(path: Path) -> str:
    """Text of the file; empty if it can't be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
