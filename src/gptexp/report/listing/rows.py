"""Rows of the list: each run and each sweep with its state, and their values by name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptexp.report.listing.index import records
from gptexp.report.listing.record import Record, Value
from gptexp.report.listing.scan import Found, scan
from gptexp.runs.layout import LOCK, SWEEP_LOCK
from gptexp.runs.locks import is_locked
from gptexp.runs.states import COMPLETED, CORRUPT, FAILED, INTERRUPTED, RUNNING
from gptexp.util.errors import RunError
from gptexp.util.files import display_path


@dataclass(frozen=True, slots=True)
class Row:
    """A run, or a sweep with its jobs that have a folder. name: the path of its folder, for the user."""

    name: str
    found: Found
    record: Record
    state: str
    jobs: tuple[Row, ...] = ()

    @property
    def done(self) -> int:
        """Number of a sweep's jobs that are completed."""
        return sum(job.state == COMPLETED for job in self.jobs)

    @property
    def metric(self) -> str:
        """The metric that selects the best step, or the best job of a sweep."""
        return self.jobs[0].metric if self.jobs else self.record.best_by

    @property
    def best(self) -> float | None:
        """The best value of that metric until now."""
        if not self.found.is_sweep:
            return self.record.best.get(self.metric)
        known = [job.best for job in self.jobs if job.best is not None and job.metric == self.metric]
        return (max if self.jobs and self.jobs[0].record.higher else min)(known, default=None)

    @property
    def seconds(self) -> float | None:
        """Seconds of training; of a sweep, the sum over its jobs."""
        known = [job.seconds for job in self.jobs if job.seconds is not None]
        return sum(known) if self.found.is_sweep else self.record.seconds

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return self.found.size + sum(job.size for job in self.jobs)

    @property
    def changed(self) -> float:
        """When its files last changed, in seconds since 1970."""
        return max([self.found.changed, *(job.changed for job in self.jobs)])

    def value(self, name: str) -> Value:
        """Return a field, a metric or a setting; None without it."""
        if name in FIELDS:
            return FIELDS[name](self)
        return self.record.metrics[name] if name in self.record.metrics else self.record.settings.get(name)


# Names that conditions and --sort accept besides settings and metrics, and the first part of --json.
FIELDS: dict[str, Callable[[Row], Value]] = {
    "run": lambda row: row.name,
    "kind": lambda row: "sweep" if row.found.is_sweep else "run",
    "sweep": lambda row: None if row.found.sweep is None else row.found.sweep.name,
    "state": lambda row: row.state,
    "problem": lambda row: row.record.problem or None,
    "error": lambda row: row.record.error or None,
    "note": lambda row: row.record.note or None,
    "step": lambda row: row.record.step,
    "max_steps": lambda row: row.record.max_steps,
    "done": lambda row: row.done if row.found.is_sweep else None,
    "jobs": lambda row: row.record.total if row.found.is_sweep else None,
    "metric": lambda row: row.metric,
    "best": lambda row: row.best,
    "best_step": lambda row: row.record.best.get("step"),
    "seconds": lambda row: row.seconds,
    "age": lambda row: round(time.time() - row.changed, 1),
    "size": lambda row: row.size,
    "parameters": lambda row: row.record.parameters,
}


def rows(root: Path) -> list[Row]:
    """Return the runs, jobs included, and the sweeps in and below a folder, the newest first.

    Raises:
        RunError: there is no such folder.
    """
    if not root.is_dir():
        raise RunError(f"--logs={root}: no such folder; train a run, or give the folder that contains runs")
    found, above = list(scan(root)), display_path(root)
    both = [
        (os.path.normpath(f"{above}/{one.name}"), one, record)
        for one, record in zip(found, records(root, found), strict=True)
    ]
    runs = [Row(name, one, record, _state(one, record)) for name, one, record in both if not one.is_sweep]
    jobs: dict[Path, list[Row]] = {}
    for run in runs:
        if run.found.sweep is not None:
            jobs.setdefault(run.found.sweep, []).append(run)
    sweeps = [_sweep(*one, jobs=tuple(jobs.get(one[1].folder, ()))) for one in both if one[1].is_sweep]
    return sorted([*runs, *sweeps], key=lambda row: row.changed, reverse=True)


def _state(found: Found, record: Record) -> str:
    if record.status != COMPLETED and is_locked(found.folder / LOCK):
        return RUNNING
    if record.problem:
        return CORRUPT
    return record.status if record.status in (COMPLETED, FAILED) else INTERRUPTED


def _sweep(name: str, found: Found, record: Record, *, jobs: tuple[Row, ...]) -> Row:
    names = set(record.jobs)
    states = {job.state for job in jobs if job.found.folder.name in names}
    done = sum(job.state == COMPLETED and job.found.folder.name in names for job in jobs)
    if RUNNING in states or is_locked(found.folder / SWEEP_LOCK):
        state = RUNNING
    elif record.problem:
        state = CORRUPT
    elif done >= record.total:
        state = COMPLETED
    else:
        state = FAILED if FAILED in states else INTERRUPTED
    return Row(name, found, record, state, jobs)


def plain(row: Row) -> dict[str, Any]:
    """Return a row for --json: the fields, then the settings and the metrics by name."""
    fields = {name: of(row) for name, of in FIELDS.items()}
    return {**fields, "settings": row.record.settings, "metrics": row.record.metrics}
