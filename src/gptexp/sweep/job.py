"""One job of a sweep, in whichever process a launcher runs it: with the stored settings, going on where it stopped."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gptexp.compose.composition import config_from_plain
from gptexp.machine import job_slots
from gptexp.runs.code_hash import code_sha256
from gptexp.runs.layout import JOB_LOG, LOCK, has_checkpoint
from gptexp.runs.result import FAILED, Result, is_finished, write_result
from gptexp.sweep import store
from gptexp.training.experiment import run_experiment
from gptexp.training.worker import lead_or_follow
from gptexp.util.errors import RunError, one_line_errors
from gptexp.util.files import append_descriptor, make_folder, require_no_link

PARENT = "GPTEXP_SWEEP"  # process id of the sweep, for jobs on its machine
GRACE = 30.0  # seconds that a job gets to end its step and save, when the sweep has ended before it


def run(folder: Path, number: int) -> float | None:
    """Run a stored job to its end; what its objective is judged by, or None if it failed, as result.json then says.

    A finished one costs nothing. One that another process still runs (left by a sweep that was killed) is
    waited for. A failed one is tried again `sweep.retries` times.
    """
    return lead_or_follow(lambda: _lead(folder, number))


def _lead(folder: Path, number: int) -> float | None:
    """Run the job as the only process, or as rank 0."""
    _end_with_sweep()
    job_slots.take_gpu(folder)
    sweep = store.read(folder)
    job = sweep.jobs[number]
    place = make_folder(sweep.place(job))
    with _alone(place):
        for attempt in range(1 + sweep.retries):
            if not is_finished(place):
                with _output_to(place / JOB_LOG):
                    _attempt(job.config, place, code=sweep.code, last=attempt == sweep.retries)
    return sweep.value(job)


def _attempt(settings: dict[str, Any], place: Path, *, code: str | None, last: bool) -> None:
    """Train, and write down why if that fails; a signal ends the process, with the job saved.

    code: the hash of the only code that may train it, with sweep.code=strict.
    """
    began = time.time()
    try:
        if code not in (None, code_sha256()):
            raise RunError(f"sweep.code=strict: the code has changed since the sweep was started (it was {code[:8]})")
        with one_line_errors(signals_only=True):
            going_on = has_checkpoint(place)
            run_experiment(config_from_plain({**settings, "resume": str(place) if going_on else None}), place)
    except Exception as error:
        traceback.print_exc()
        if not last:
            return
        message = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        seconds = round(time.time() - began, 3)
        write_result(place, Result(status=FAILED, error=message[:500], seconds=seconds))


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Wait until no other process trains this job."""
    from filelock import FileLock

    lock = place / f"{LOCK}.job"
    require_no_link(lock)
    with FileLock(lock):
        _idle.clear()
        try:
            yield
        finally:
            _idle.set()


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """What the job and its children print goes to its log; the terminal belongs to the sweep."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    log = append_descriptor(path)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for saved, standard in zip(kept, (1, 2), strict=True):
            os.dup2(saved, standard)
            os.close(saved)
        os.close(log)


_watching = False
_idle = threading.Event()  # no job of this process is at work


def _end_with_sweep() -> None:
    """Whoever ends or kills the sweep leaves no job training on: each ends its step, and saves where it can."""
    global _watching
    sweep = int(os.environ.get(PARENT, 0))
    if sweep and sweep != os.getpid() and not _watching:
        _watching = True
        _idle.set()
        threading.Thread(target=_watch, args=(sweep,), daemon=True).start()


def _watch(sweep: int) -> None:
    import psutil

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
