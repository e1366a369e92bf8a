"""Progress of a sweep: a line for each job that ends, a status line, and a table at the end (no torch)."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gptexp.report import compare_command
from gptexp.runs.layout import JOB_LOG, RESULT
from gptexp.runs.result import COMPLETED, FAILED, Result, find_result
from gptexp.sweep.plan import Job
from gptexp.sweep.store import Sweep, read
from gptexp.util.files import display_path

POLL = 0.3  # seconds


class Progress:
    """Watches the folders of the jobs from a thread, so that it works with every launcher."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.began = time.time()
        self.ended: dict[str, str] = {job.name: "completed" for job in sweep.jobs if sweep.status(job) == "completed"}
        self._before = len(self.ended)
        self._done = threading.Event()
        # Jobs in this process redirect its standard output to their logs.
        self._terminal = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors="replace")
        self.console = Console(file=self._terminal, highlight=False)

    def __enter__(self) -> Progress:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._terminal.close()

    def _watch(self) -> None:
        if not self.console.is_terminal:
            while not self._done.wait(POLL):
                self._look()
            self._look()
            return
        with self.console.status("") as status:
            while not self._done.wait(POLL):
                self._look()
                status.update(Text(self._state()))
        self._look()

    def _look(self) -> None:
        """Print a line for every job that has ended since the last call."""
        if self.sweep.search is not None:  # a search adds jobs while it runs
            self.sweep.jobs = read(self.sweep.folder).jobs
        for job in self.sweep.jobs:
            path = self.sweep.place(job) / RESULT
            if job.name in self.ended or not path.exists() or path.stat().st_mtime < self.began:
                continue
            result = find_result(path.parent)
            if result.status not in (COMPLETED, FAILED):
                continue
            self.ended[job.name] = result.status
            self.console.print(Text(self._line(job, result)), soft_wrap=True)

    def _line(self, job: Job, result: Result) -> str:
        name, metric = job.name, self.sweep.best_by(job)
        place = f"{len(self.ended)}/{self.sweep.total}"
        if result.status == FAILED:
            return f"failed {place} · {name} · {result.error}"
        return (
            f"done {place} · {name} · {metric} {_number(self.sweep.value(job))} · "
            f"{_seconds(result) or 0} s{self._left()}"
        )

    def _left(self) -> str:
        """Return the remaining time, estimated from the jobs that have ended since this start."""
        now = len(self.ended) - self._before
        left = self.sweep.total - len(self.ended)
        if not now or not left:
            return ""
        minutes, seconds = divmod(round((time.time() - self.began) / now * left), 60)
        return f" · about {minutes}:{seconds:02d} left"

    def _state(self) -> str:
        running = [job.name for job in self.sweep.jobs if job.name not in self.ended and self._has_begun(job.name)]
        failed = sum(status == "failed" for status in self.ended.values())
        return (
            f"{len(self.ended)} of {self.sweep.total} done, {failed} failed, "
            f"{len(running)} running ({', '.join(running[:2])}){self._left()}"
        )

    def _has_begun(self, name: str) -> bool:
        log = self.sweep.folder / name / JOB_LOG
        return log.exists() and log.stat().st_mtime > self.began


def summary(sweep: Sweep, console: Console) -> int:
    """Print a row for each job and the command that compares them; return the number of failed jobs."""
    table = Table("job", "status", _metric(sweep), "steps", "seconds")
    table.columns[0].overflow = "fold"
    for column in table.columns[2:]:
        column.justify = "right"
    failed = []
    for job in sweep.jobs:
        result, status = find_result(sweep.place(job)), sweep.status(job)
        value = _number(sweep.value(job)) if status == "completed" else ""
        seconds = _seconds(result)
        table.add_row(Text(job.name), status, value, str(result.steps or ""), seconds)
        if status == "failed":
            failed.append(f"{job.name}: {result.error} (see {display_path(sweep.place(job) / JOB_LOG)})")
    console.print(table)
    if sweep.search is not None and (best := _best(sweep)):
        console.print(Text(best), soft_wrap=True)
    for line in failed:
        console.print(Text(f"failed: {line}"), soft_wrap=True)
    named = {sweep.best_by(job) for job in sweep.jobs} - {"val/bpb"}  # the default of compare
    metric = ["--metric", *named] if len(named) == 1 else []
    console.print(Text(f"next: {compare_command(display_path(sweep.folder), *metric)}"), soft_wrap=True)
    return len(failed)


def _best(sweep: Sweep) -> str:
    found = [(sweep.value(job), job) for job in sweep.jobs]
    scored = [(value, job) for value, job in found if value is not None]
    if not scored:
        return ""
    value, job = min(scored, key=lambda pair: pair[0])
    return f"best: {job.name} · {sweep.best_by(job)} {value:.4f} · {' '.join(job.overrides)}"


def _metric(sweep: Sweep) -> str:
    """Return the metric of the jobs; several names for several objectives."""
    return " or ".join(dict.fromkeys(sweep.best_by(job) for job in sweep.jobs)) or "val/bpb"


def _seconds(result: Result) -> str:
    return "" if result.seconds is None else f"{result.seconds:.0f}"


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"
