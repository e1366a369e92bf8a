"""What the files of a run or a sweep say, at any time of its life, or what is wrong with them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import TypeVar

from gptexp.runs.layout import CONFIG, METRICS, NOTE, RESULT, SWEEP
from gptexp.util.files import MIB, TEXT_BYTES, read_rows, read_text

Value = str | int | float | bool | None
Read = TypeVar("Read")
NOTE_BYTES = MIB // 64


@dataclass(frozen=True, kw_only=True)
class Record:
    """What the files say. The first fields have the names that `gptexp runs` shows them by (docs/runs.md).

    settings: by dotted name. metrics: the last value of each column of metrics.csv and of each metric of result.json;
    None: not finite. status: of result.json. job_names: of a sweep, whose `jobs` also counts those that a search has
    not yet chosen. higher: whether the largest value of the metric is the best. foreign: whether kinds of its settings
    come from a package that extends gptexp.
    """

    problem: str | None = None
    error: str | None = None
    note: str | None = None
    step: int | None = None
    max_steps: int | None = None
    jobs: int | None = None
    metric: str = "val/bpb"
    best: float | None = None
    best_step: float | None = None
    seconds: float | None = None
    parameters: int | None = None
    settings: dict[str, Value] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)
    status: str | None = None
    job_names: list[str] = field(default_factory=list)
    higher: bool = False
    foreign: bool = False


def read(folder: Path, *, is_sweep: bool) -> Record:
    """Read a run or a sweep. It never fails: `problem` says what is wrong."""
    problems: list[str] = []
    note = _read(lambda: read_text(folder / NOTE, NOTE_BYTES, errors="replace").strip(), "", folder / NOTE, problems)
    record = (_sweep if is_sweep else _run)(folder, problems)
    return replace(record, note=note or None, problem="; ".join(problems) or None)


def _read(read: Callable[[], Read], otherwise: Read, path: Path, problems: list[str]) -> Read:
    """Return what a function reads from a file, and append to the problems if that is damaged."""
    from gptexp.report.reading import reason_of

    try:
        return read()
    except FileNotFoundError:
        pass
    except (OSError, ValueError, csv.Error) as error:
        problems.append(f"{path.name} is damaged: {reason_of(error, path)}")
    return otherwise


def _run(folder: Path, problems: list[str]) -> Record:
    from gptexp.config import KINDS, best_by  # imports OmegaConf, which a valid index doesn't need
    from gptexp.config.fingerprint import DEFAULT_KINDS
    from gptexp.config.kinds import BUILT_IN
    from gptexp.config.objective import HIGHER
    from gptexp.report.reading import Unreadable, read_flat_settings
    from gptexp.runs.result import COMPLETED, FAILED, Result, read_result

    result = _read(lambda: read_result(folder), Result(), folder / RESULT, problems)
    try:
        settings = read_flat_settings(folder)
    except Unreadable as reason:
        settings = {}
        if (folder / CONFIG).exists():
            problems.append(str(reason))
        elif result.status != FAILED:  # a job whose settings were refused has only a result
            problems.append(f"no {CONFIG}")
    kind, known = settings.get("objective.kind"), KINDS["objective"]
    metric = best_by(known[kind if kind in known else DEFAULT_KINDS["objective"]])
    path, higher = folder / METRICS, metric in HIGHER
    curve = _read(lambda: _curve(path, metric, higher=higher), Record(), path, problems)
    asked = settings.get("trainer.max_steps")
    if result.length is not None:
        asked = result.length["max_steps"]
    completed = result.status == COMPLETED
    return Record(
        error=" ".join((result.error or "").split()) or None,
        step=result.steps if completed else max(curve.step or 0, result.steps or 0),
        max_steps=asked if type(asked) is int and 0 < asked < 2**63 else None,
        metric=metric,
        best=_finite(result.best.get(metric)) if completed else curve.best,
        best_step=_finite(result.best.get("step")) if completed else curve.best_step,
        seconds=result.training_seconds if completed else curve.metrics.get("seconds"),
        parameters=result.parameters,
        settings={name: str(x) if isinstance(x, float) and not isfinite(x) else x for name, x in settings.items()},
        metrics=curve.metrics | {name: _finite(value) for name, value in result.metrics.items()},
        status=result.status,
        higher=higher,
        foreign=any(settings.get(f"{group}.kind") not in (None, *kinds) for group, kinds in BUILT_IN.items()),
    )


def _curve(path: Path, metric: str, *, higher: bool) -> Record:
    """Return what metrics.csv says about a run. ValueError: a row that training does not write."""
    rows = read_rows(path, strict=True)
    if any(None in row or not row.get("step") for row in rows):
        raise ValueError("a row has too many columns, or no step")
    if not all(0 <= int(row["step"]) < 2**63 for row in rows):
        raise ValueError("a step is no number of steps")
    last = {name: next((row[name] for row in reversed(rows) if row[name]), "") for name in (rows[0] if rows else ())}
    values = [(float(row[metric]), int(row["step"])) for row in rows if row.get(metric)]
    finite = [(value, step) for value, step in values if _finite(value) is not None]
    best, best_step = (max if higher else min)(finite, key=lambda pair: pair[0], default=(None, None))
    return Record(
        step=int(rows[-1]["step"]) if rows else None,
        best=best,
        best_step=best_step,
        metrics={name: _finite(float(cell)) for name, cell in last.items() if cell and name != "step"},
    )


def _finite(value: float | None) -> float | None:
    """Return None for a value that is not finite or counts as diverged."""
    from gptexp.report.reading import LARGEST

    return None if value is None or not abs(value) < LARGEST else value


def _sweep(folder: Path, problems: list[str]) -> Record:
    from gptexp.util.yaml_files import read_yaml

    stored = _read(lambda: read_yaml(folder / SWEEP, at_most=TEXT_BYTES), None, folder / SWEEP, problems)
    listed = stored.get("jobs") if isinstance(stored, dict) else None
    if not isinstance(listed, list):
        problems[:] = problems or [f"{SWEEP} is empty or not a sweep"]
        return Record()
    names = [job["name"] for job in listed if isinstance(job, dict) and isinstance(job.get("name"), str)]
    search = stored["search"] if isinstance(stored.get("search"), dict) else {}
    trials = search.get("n_trials")
    return Record(job_names=names, jobs=max(len(names), trials if type(trials) is int else 0))
