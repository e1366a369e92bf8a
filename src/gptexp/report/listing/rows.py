"""Rows of the list: each run and each sweep with its state, and their values by name."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
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

# Names that conditions and --sort accept besides settings and metrics, and the first part of --json.
FIELDS = (
    *("run", "kind", "sweep", "state", "problem", "error", "note", "step", "max_steps", "done", "jobs", "metric"),
    *("best", "best_step", "seconds", "age", "size", "parameters"),
)


@dataclass(frozen=True, kw_only=True)
class Row(Record):
    """A run, or a sweep with the best value, the sum of the seconds and the size of its jobs.

    run: the path of its folder, for the user. kind: run or sweep. sweep: the name of the sweep that a run is a job of.
    done: completed jobs of a sweep. age: seconds since its files last changed. size: bytes of all its files.
    """

    run: str
    kind: str
    sweep: str | None
    state: str
    done: int | None
    age: float
    size: int

    def value(self, name: str) -> Value:
        """Return a field, a metric or a setting; None without it."""
        if name in FIELDS:
            found: Value = getattr(self, name)
            return found
        return self.metrics[name] if name in self.metrics else self.settings.get(name)

    def as_plain(self) -> dict[str, Any]:
        """Return the fields, then the settings and the metrics by name."""
        return {name: getattr(self, name) for name in (*FIELDS, "settings", "metrics")}


def names(found: Iterable[Row]) -> list[str]:
    """Return every name that a condition or --sort may have."""
    return list(dict.fromkeys([*FIELDS, *(name for row in found for name in (*row.metrics, *row.settings))]))


def rows(root: Path) -> list[Row]:
    """Return the runs, jobs included, and the sweeps in and below a folder, the newest first.

    Raises:
        RunError: there is no such folder.
    """
    if not root.is_dir():
        raise RunError(f"--logs={root}: no such folder; train a run, or give the folder that contains runs")
    now, above, found = time.time(), display_path(root), scan(root)
    result: list[Row] = []
    jobs: dict[Path, dict[str, Row]] = {}  # by the folder of their sweep
    for one, record in reversed(list(zip(found, records(root, found), strict=True))):  # jobs come before their sweep
        row = _row(one, record, f"{above}/{one.name}", now, jobs.get(one.folder, {}))
        if one.sweep is not None:
            jobs.setdefault(one.sweep.folder, {})[one.folder.name] = row
        result.append(row)
    return sorted(result, key=lambda row: row.age)


def _row(found: Found, record: Record, name: str, now: float, jobs: Mapping[str, Row]) -> Row:
    """Return a row. jobs: of a sweep, by name; those that are no longer part of it count for age and size only."""
    planned = [jobs[name] for name in record.job_names if name in jobs]
    known = vars(record) | (_of_jobs(record, planned) if found.is_sweep else {"done": None})
    running = any(job.state == RUNNING for job in planned)
    if known["status"] != COMPLETED and (running or is_locked(found.folder / (SWEEP_LOCK if found.is_sweep else LOCK))):
        state = RUNNING
    elif record.problem:
        state = CORRUPT
    else:
        state = known["status"] if known["status"] in (COMPLETED, FAILED) else INTERRUPTED
    return Row(
        **known,
        run=os.path.normpath(name),
        kind="sweep" if found.is_sweep else "run",
        sweep=None if found.sweep is None else found.sweep.folder.name,
        state=state,
        age=min([now - found.changed, *(job.age for job in jobs.values())]),
        size=found.size + sum(job.size for job in jobs.values()),
    )


def _of_jobs(sweep: Record, jobs: Sequence[Row]) -> dict[str, Any]:
    """Return the values that a sweep has from its jobs."""
    states, first = [job.state for job in jobs], jobs[0] if jobs else sweep
    done = states.count(COMPLETED)
    values = [job.best for job in jobs if job.best is not None and job.metric == first.metric]
    return {
        "status": COMPLETED if done >= (sweep.jobs or 0) else FAILED if FAILED in states else INTERRUPTED,
        "done": done,
        "metric": first.metric,
        "best": (max if first.higher else min)(values, default=None),
        "seconds": sum(job.seconds or 0.0 for job in jobs),
    }
