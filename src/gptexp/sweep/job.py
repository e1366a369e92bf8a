"""Run one job of a sweep, in any process, with the stored settings; it resumes if it has a checkpoint."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from gptexp.compose.composition import config_from_plain
from gptexp.machine import job_slots
from gptexp.runs.code_hash import all_code_sha256
from gptexp.runs.layout import JOB_LOG, LOCK, has_checkpoint
from gptexp.runs.result import FAILED, Result, is_finished, write_result
from gptexp.sweep import store
from gptexp.sweep.ending import busy, end_with_sweep
from gptexp.sweep.share import sharing_of, tidy
from gptexp.training.experiment import run_experiment
from gptexp.training.worker import lead_or_follow
from gptexp.util.errors import RunError, one_line_errors
from gptexp.util.files import append_descriptor, make_folder, require_no_link


def run(folder: Path, number: int) -> float | None:
    """Run a stored job; return its metric, or None if it failed (result.json has the error).

    A completed job is not repeated. If another process still runs the job (after a sweep was killed), wait for it.
    A failed job is repeated `sweep.retries` times.
    """
    return lead_or_follow(lambda: _lead(folder, number))


def _lead(folder: Path, number: int) -> float | None:
    """Run the job as the only process, or as rank 0."""
    end_with_sweep()
    job_slots.take_gpu(folder)
    sweep = store.read(folder)
    job = sweep.jobs[number]
    place = make_folder(sweep.place(job))
    with _alone(place):
        for attempt in range(1 + sweep.retries):
            if not is_finished(place):
                with _output_to(place / JOB_LOG):
                    _attempt(sweep, number, last=attempt == sweep.retries)
    tidy(sweep)
    return sweep.value(job)


def _attempt(sweep: store.Sweep, number: int, *, last: bool) -> None:
    """Train, and write the error into result.json if that fails; a signal saves the job and ends the process."""
    began, job, code = time.time(), sweep.jobs[number], sweep.code
    place = sweep.place(job)
    try:
        if code not in (None, all_code_sha256()):
            raise RunError(f"sweep.code=strict: the code has changed since the sweep was started (it was {code[:8]})")
        with one_line_errors(signals_only=True):
            resume = str(place) if has_checkpoint(place) else None
            config = config_from_plain({**job.config, "resume": resume})
            run_experiment(
                config,
                place,
                steps=sweep.steps_of(job),
                resolution=sweep.resolution_of(job),
                sharing=sharing_of(sweep, number),
            )
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
    lock = place / f"{LOCK}.job"
    require_no_link(lock)
    with FileLock(lock), busy():
        yield


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Redirect the output of the job and its child processes to a file."""
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
