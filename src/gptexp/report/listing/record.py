"""What the files of a run or a sweep say, at any time of its life, or what is wrong with them."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gptexp.runs.layout import CONFIG, METRICS, NOTE, RESULT, SWEEP
from gptexp.util.files import MIB, TEXT_BYTES, read_rows, read_text
from gptexp.util.text import first_line

Value = str | int | float | bool | None
LARGEST = 1e100  # as in gptexp.report.reading, a larger metric counts as diverged
NOTE_BYTES = MIB // 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the files say.

    status: of result.json. problem: why the folder is corrupt. error: why the run failed. metrics: the last value of
    each column of metrics.csv and of each metric of result.json, best: those of the best step; None: not finite.
    best_by: the metric that selects the best step. higher: whether its largest value is the best. seconds: of training
    until now. jobs: names of a sweep's jobs. total: their number, with those that a search has not yet chosen.
    foreign: whether kinds of its settings come from a package that extends gptexp.
    """

    status: str | None = None
    problem: str = ""
    error: str = ""
    note: str = ""
    settings: dict[str, Value] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)
    best: dict[str, float | None] = field(default_factory=dict)
    best_by: str = "val/bpb"
    step: int | None = None
    max_steps: int | None = None
    seconds: float | None = None
    parameters: int | None = None
    jobs: list[str] = field(default_factory=list)
    total: int = 0
    foreign: bool = False
    higher: bool = False


def read(folder: Path, *, is_sweep: bool) -> Record:
    """Read a run or a sweep. It never fails: `problem` says what is wrong."""
    return replace(_sweep(folder) if is_sweep else _run(folder), note=read_note(folder))


def read_note(folder: Path) -> str:
    """Return the note that is attached to a run or a sweep; "" without one."""
    try:
        return read_text(folder / NOTE, NOTE_BYTES, errors="replace").strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"({NOTE}: {error.strerror})"


def _run(folder: Path) -> Record:
    from gptexp.config import KINDS, best_by  # imports OmegaConf, which a valid index doesn't need
    from gptexp.config.fingerprint import DEFAULT_KINDS
    from gptexp.config.kinds import BUILT_IN
    from gptexp.config.objective import HIGHER
    from gptexp.report.reading import Unreadable, read_flat_settings
    from gptexp.runs.result import COMPLETED, FAILED, Result, read_result

    problems, settings, result, rows = [], dict[str, Any](), Result(), list[dict[str, str]]()
    try:
        result = read_result(folder)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        problems.append(_damaged(folder / RESULT, error))
    try:
        settings = read_flat_settings(folder)
    except Unreadable as reason:
        if (folder / CONFIG).exists():
            problems.append(str(reason))
        elif result.status != FAILED:  # a job whose settings were refused has only a result
            problems.append(f"no {CONFIG}")
    kind, known = settings.get("objective.kind"), KINDS["objective"]
    metric = best_by(known[kind if kind in known else DEFAULT_KINDS["objective"]])
    metrics, best, step = dict[str, float | None](), dict[str, float | None](), None
    try:
        rows = read_rows(folder / METRICS, strict=True)
        metrics, step = _last(rows), _step(rows[-1]) if rows else None
        best = _best(rows, metric, higher=metric in HIGHER)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        problems.append(_damaged(folder / METRICS, error))
    asked = settings.get("trainer.max_steps")
    known_length = type(asked) is int and 0 < asked < 2**63
    completed = result.status == COMPLETED
    return Record(
        status=result.status,
        problem="; ".join(problems),
        error=" ".join((result.error or "").split()),
        settings={key: value if _is_plain(value) else str(value) for key, value in settings.items()},
        metrics=metrics | {name: _finite(value) for name, value in result.metrics.items()},
        best={name: _finite(value) for name, value in result.best.items()} if completed else best,
        best_by=metric,
        step=result.steps if completed else max(step or 0, result.steps or 0),
        max_steps=result.length["max_steps"] if result.length else asked if known_length else None,
        seconds=result.training_seconds if completed else metrics.get("seconds"),
        parameters=result.parameters,
        foreign=any(settings.get(f"{group}.kind") not in (None, *kinds) for group, kinds in BUILT_IN.items()),
        higher=metric in HIGHER,
    )


def _last(rows: list[dict[str, str]]) -> dict[str, float | None]:
    """Return the last value of each column."""
    if any(None in row for row in rows):
        raise ValueError("a row has too many columns")
    last = {name: next((row[name] for row in reversed(rows) if row[name]), "") for name in (rows[0] if rows else ())}
    return {name: _finite(float(cell)) for name, cell in last.items() if cell and name != "step"}


def _best(rows: list[dict[str, str]], metric: str, *, higher: bool) -> dict[str, float | None]:
    values = [(float(row[metric]), _step(row)) for row in rows if row.get(metric)]
    finite = [(value, step) for value, step in values if _finite(value) is not None]
    if not finite:
        return {}
    value, step = (max if higher else min)(finite, key=lambda pair: pair[0])
    return {metric: value, "step": step}


def _step(row: dict[str, str]) -> int:
    step = int(row["step"])
    if not 0 <= step < 2**63:
        raise ValueError(f"step is {step:.1e}")
    return step


def _finite(value: float | None) -> float | None:
    return None if value is None or not abs(value) < LARGEST else value


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))


def _sweep(folder: Path) -> Record:
    from gptexp.util.yaml_files import read_yaml

    try:
        stored = read_yaml(folder / SWEEP, at_most=TEXT_BYTES)
    except (OSError, ValueError) as error:
        return Record(problem=_damaged(folder / SWEEP, error))
    listed = stored.get("jobs") if isinstance(stored, dict) else None
    if not isinstance(listed, list):
        return Record(problem=f"{SWEEP} is empty or not a sweep")
    jobs = [job["name"] for job in listed if isinstance(job, dict) and isinstance(job.get("name"), str)]
    search = stored.get("search")
    trials = search.get("n_trials") if isinstance(search, dict) else 0
    return Record(jobs=jobs, total=max(len(jobs), trials if type(trials) is int else 0))


def _damaged(path: Path, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
    what = f"no column {reason}" if isinstance(error, KeyError) else reason.removeprefix(f"{path}: ")
    return f"{path.name} is damaged: {what[:160]}"
