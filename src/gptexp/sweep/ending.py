"""End the jobs on this machine when the process that started them ends, however it is killed. No torch."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

PARENT = "GPTEXP_SWEEP"  # process id of the sweep, for jobs on its machine
GRACE = 30.0  # seconds for a job to complete its step and save after the sweep has ended

_watching = False
_idle = threading.Event()  # set while this process runs no job


@contextmanager
def busy() -> Iterator[None]:
    """A context in which this process runs a job."""
    _idle.clear()
    try:
        yield
    finally:
        _idle.set()


def end_with_sweep() -> None:
    """End the job, with a checkpoint where possible, when the sweep ends or is killed."""
    global _watching
    sweep = int(os.environ.get(PARENT, 0))
    if sweep and sweep != os.getpid() and not _watching:
        _watching = True
        _idle.set()
        threading.Thread(target=_watch, args=(sweep,), daemon=True).start()


def _watch(sweep: int) -> None:
    try:
        process = psutil.Process(sweep)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.5)
    except psutil.NoSuchProcess:
        pass
    if not _idle.is_set():
        os.kill(os.getpid(), signal.SIGTERM)
        _idle.wait(GRACE)
    os._exit(1)
