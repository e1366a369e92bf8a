"""result.json: the outcome of a run. `write_result` is its only writer, `read_result` its only reader."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, cast

from gptexp.runs.history import Segment, checked
from gptexp.runs.layout import CHECKPOINTS, LAST, RESULT
from gptexp.runs.states import COMPLETED as COMPLETED
from gptexp.runs.states import FAILED as FAILED
from gptexp.runs.states import INTERRUPTED as INTERRUPTED
from gptexp.util.files import display_path, read_json, write_json
from gptexp.util.signals import Interrupted

SCHEMA = 1


class RunLength(TypedDict):
    """The length of a run. asked: the setting that gives it, by name. max_steps: the steps that it was resolved to."""

    asked: dict[str, int | float | str]
    max_steps: int


Metrics = dict[str, float | None]  # None: not finite, which strict JSON has no number for


@dataclass(frozen=True, kw_only=True)
class Result:
    """The outcome of a run. A key that a file lacks has the default.

    status: completed, interrupted or failed; None without a readable file. metrics, best: of the last and of the best
    step. val: the sums behind the metrics and the hash of the scored text. seconds: of the last process;
    training_seconds: of all, without validation. resumed_from: the step at which the last process started.
    steps_computed: steps without those that another job of the sweep computed; a repeated step counts once. length:
    what the settings asked for, and its number of steps. mixture: share, windows, epochs and the hash of the validation
    text of each part of a mixture.
    """

    status: str | None = None
    signal: str | None = None
    error: str | None = None
    metrics: Metrics = field(default_factory=dict)
    best: Metrics = field(default_factory=dict)
    val: dict[str, Any] = field(default_factory=dict)
    steps: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    training_seconds: float | None = None
    tokens_per_second: float | None = None
    parameters: int | None = None
    trainable_parameters: int | None = None
    precision: str | None = None
    flops_per_token: float | None = None
    bytes_per_token: float | None = None
    resumed_from: int | None = None
    steps_computed: int | None = None
    length: RunLength | None = None
    mixture: dict[str, dict[str, Any]] | None = None
    peak_lr: float | None = None
    code_sha256: str | None = None
    history: list[Segment] | None = None

    def as_plain(self) -> dict[str, Any]:
        """Return the content of result.json."""
        values = asdict(self)
        if self.status == COMPLETED:
            without = {"signal", "error", *(["mixture"] if self.mixture is None else [])}
            names = [name for name in values if name not in without]
        else:
            names = [name for name, value in values.items() if value not in (None, {})]
        return {"schema": SCHEMA, **{name: values[name] for name in names}}


def finite(metrics: Mapping[str, float]) -> Metrics:
    """Return the metrics with None for each value that is not finite."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def write_result(folder: Path, result: Result) -> None:
    """Write result.json."""
    write_json(folder / RESULT, result.as_plain())


def read_result(folder: Path) -> Result:
    """Return the content of result.json.

    Raises:
        OSError: the file is missing or unreadable.
        ValueError: the file is damaged or has a later schema.
    """
    return from_plain(read_json(folder / RESULT))


def find_result(folder: Path) -> Result:
    """Return what can be read of result.json: `Result()` without a file, only the status of a damaged one."""
    try:
        stored = read_json(folder / RESULT)
    except (OSError, ValueError):
        return Result()
    try:
        return from_plain(stored)
    except ValueError:
        status = stored.get("status")
        return Result(status=status if isinstance(status, str) else None)


def is_finished(folder: Path) -> bool:
    """Return whether a run has completed all its steps."""
    return find_result(folder).status == COMPLETED


# ---------------------------------------------------------------------------------- checks


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value < 2**63


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max


def _is_positive(value: object) -> bool:
    return _is_number(value) and value != 0


_CHECKS: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("signal", "precision", "code_sha256"), _is_text),
    **dict.fromkeys(
        ("steps", "tokens", "parameters", "trainable_parameters", "resumed_from", "steps_computed"), _is_count
    ),
    **dict.fromkeys(("seconds", "training_seconds", "flops_per_token"), _is_number),  # a bigram has no FLOPs
    **dict.fromkeys(("tokens_per_second", "bytes_per_token", "peak_lr"), _is_positive),
}
_NULLABLE = {
    *("precision", "flops_per_token", "bytes_per_token", "resumed_from", "steps_computed", "peak_lr", "code_sha256")
}


def from_plain(stored: dict[str, Any]) -> Result:
    """Return the outcome in the content of result.json, which may be untrusted. ValueError: it is damaged."""
    schema = stored.get("schema", SCHEMA)
    if schema != SCHEMA:
        raise ValueError(f"schema={schema!r}: this version of gptexp reads schema {SCHEMA}")
    for name, check in _CHECKS.items():
        value = stored.get(name)
        if name in stored and not (check(value) or (value is None and name in _NULLABLE)):
            raise ValueError(f"{name} is {value!r}")
    status, error, val, history = (stored.get(name) for name in ("status", "error", "val", "history"))
    if not isinstance(val, (dict, type(None))):
        raise ValueError("val is not an object")
    mixture = stored.get("mixture")
    if mixture is not None and not (isinstance(mixture, dict) and all(isinstance(p, dict) for p in mixture.values())):
        raise ValueError("mixture is not an object of parts")
    return Result(
        status=status if isinstance(status, str) else None,
        error=None if error is None else str(error),
        metrics=_metrics("metrics", stored.get("metrics")),
        best=_metrics("best", stored.get("best")),
        val=val or {},
        history=None if history is None else checked(history),
        length=_length(stored.get("length")),
        mixture=mixture,
        **{name: stored.get(name) for name in _CHECKS},
    )


def _length(stored: object) -> RunLength | None:
    if stored is None:
        return None
    asked = stored.get("asked") if isinstance(stored, dict) else None
    plain = isinstance(asked, dict) and all(type(value) in (int, float, str) for value in asked.values())
    if not isinstance(stored, dict) or not plain or not _is_count(stored.get("max_steps")):
        raise ValueError(f"length is {stored!r}")
    return cast("RunLength", stored)


def _metrics(name: str, values: object) -> Metrics:
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{name} is not an object")
    for metric, value in values.items():
        huge = type(value) is int and abs(value) > sys.float_info.max
        if huge or (value is not None and type(value) not in (int, float)):
            raise ValueError(f"{metric} is {repr(value)[:80]}")
    return values


# ---------------------------------------------------------------------------------- interruption


def interrupted(signum: int, folder: Path) -> Interrupted:
    """Return the exception for a run that a signal ended; its message names the command to resume."""
    return Interrupted(signum, partial(_place, folder))


def _place(folder: Path) -> str:
    if not (folder / CHECKPOINTS / LAST).exists():
        return " before the first checkpoint"
    steps = find_result(folder).steps
    place = f" after step {steps}" if steps else ""
    return f"{place}; continue with resume={shlex.quote(display_path(folder))}"
