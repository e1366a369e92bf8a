"""gptexp: GPT experiments with PyTorch Lightning and Hydra."""

import os
import sys
from pathlib import Path

from gptexp.entry import drop_current_directory

__version__ = "0.1.0"

# This is what it is while Python looks for the module of `python -m gptexp.…`, before it imports anything else.
if sys.argv[:1] == ["-m"]:
    drop_current_directory()


def _busy() -> bool:
    """Whether other programs compute on half of this machine's cores, or more."""
    try:
        running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]) - 1  # without this one
    except (OSError, ValueError, IndexError):  # no Linux
        return False
    return 2 * running >= (os.cpu_count() or 1)


# GNU OpenMP's threads wait for each other by spinning. Alone on a machine that is quickest, by a tenth. On cores that
# another program uses too it is a disaster: two runs on two cores took ten times as long as one after the other. So
# a run that finds others at work lets its threads sleep soon. OpenMP reads this when torch is loaded.
if _busy():
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
