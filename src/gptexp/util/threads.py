"""How the threads of this process share the cores with other programs."""

from __future__ import annotations

import os
from pathlib import Path

# Linux: the load, and how many threads compute now.
LOAD = Path("/proc/loadavg")


def share_cores() -> None:
    """Let OpenMP's threads sleep soon where other programs compute. Call it before torch is imported, which reads this.

    GNU OpenMP's threads wait for each other by spinning. Alone on a machine that is fastest, by a tenth. On cores that
    another program uses too, two runs on two cores took ten times as long as one after the other.
    """
    if _busy():
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _busy() -> bool:
    """Whether other programs compute on half of this machine's cores, or more."""
    try:
        running = int(LOAD.read_text().split()[3].partition("/")[0]) - 1  # without this one
    except (OSError, ValueError, IndexError):  # no Linux
        return False
    return 2 * running >= (os.cpu_count() or 1)
