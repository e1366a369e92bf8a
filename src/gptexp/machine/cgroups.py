"""Memory limits of containers and schedulers: Linux control groups, versions 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

UNLIMITED = 2**62

# Folder of the memory controller, files of limit and usage, and statistics of memory that the kernel can reclaim.
# Version 1 includes child groups in the fields that begin with total_, version 2 in all fields.
_VERSION_1 = (
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)
_VERSION_2 = ("sys/fs/cgroup", "memory.max", "memory.current", ("inactive_file", "active_file", "slab_reclaimable"))


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes that this process can still allocate under the limits of its control group and its parents.

    The page cache counts as available, because the kernel drops it when memory is needed.
    """
    return min((_available(folder, version) for folder, version in _groups(root)), default=UNLIMITED)


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str, tuple[str, ...]]]]:
    """Yield the folders of this process's group and its parents, as far as they are mounted.

    A container sees its group at the mount point, while /proc may give the group's path on the host.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number != "0" and "memory" not in controllers.split(","):
            continue
        version = _VERSION_2 if number == "0" else _VERSION_1
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts) + 1) if ".." not in parts else [0]:
            yield root.joinpath(version[0], *parts[:depth]), version


def _available(folder: Path, version: tuple[str, str, str, tuple[str, ...]]) -> int:
    _, limit, used, reclaimable = version
    try:
        free = int(_read(folder / limit)) - int(_read(folder / used))  # "max" without a limit
    except ValueError:
        return UNLIMITED
    counts = dict(line.split(" ", 1) for line in _read(folder / "memory.stat").splitlines())
    return max(0, free + sum(int(counts.get(name, 0)) for name in reclaimable))


def _read(path: Path) -> str:
    """Return the text of a file; empty if it is unreadable."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
