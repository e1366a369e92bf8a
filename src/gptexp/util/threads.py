"""Sharing of the cores with other programs."""

from __future__ import annotations

import os
import time
from pathlib import Path

LOAD = Path("/proc/loadavg")  # Linux: the load and the number of running threads
LOOKS, PAUSE = 5, 0.004  # looks at the machine, and seconds between two


def share_cores() -> None:
    """Let OpenMP's threads sleep early if other programs are busy. Call it before the import of torch.

    GNU OpenMP's threads spin while they wait. On an idle machine small models train up to 1.6 times as fast with it.
    On shared cores it is much slower: two concurrent runs on two cores took ten times as long as two runs in sequence.
    """
    if "GOMP_SPINCOUNT" not in os.environ and _busy():
        os.environ["GOMP_SPINCOUNT"] = "1000"


def _busy() -> bool:
    """Return whether other programs use at least half of the cores, all the time: what runs for a moment is no load."""
    for look in range(LOOKS):
        time.sleep(PAUSE if look else 0)
        try:
            running = int(LOAD.read_text().split()[3].partition("/")[0]) - 1  # without this process
        except (OSError, ValueError, IndexError):  # not Linux
            return False
        if 2 * running < (os.cpu_count() or 1):
            return False
    return True
