"""Sharing of the cores with other programs."""

from __future__ import annotations

import os
from pathlib import Path

LOAD = Path("/proc/loadavg")  # Linux: the load and the number of running threads


def share_cores() -> None:
    """Let OpenMP's threads sleep early if other programs are busy. Call it before the import of torch.

    GNU OpenMP's threads spin while they wait, which is a tenth faster on an idle machine. On shared cores it is much
    slower: two concurrent runs on two cores took ten times as long as two runs in sequence.
    """
    if _busy():
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _busy() -> bool:
    """Return whether other programs use at least half of the cores."""
    try:
        running = int(LOAD.read_text().split()[3].partition("/")[0]) - 1  # without this process
    except (OSError, ValueError, IndexError):  # not Linux
        return False
    return 2 * running >= (os.cpu_count() or 1)
