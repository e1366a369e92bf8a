"""What a report keeps of each run, as plain data, so that `gptexp verify` can train it again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any

from gptexp.config.fingerprint import completed
from gptexp.report.reading import Run
from gptexp.runs import history
from gptexp.runs.layout import CONFIG
from gptexp.runs.provenance import Provenance, provenance_files, read_provenance
from gptexp.runs.result import Metrics, finite, read_result
from gptexp.util.yaml_files import read_yaml

ELSEWHERE = (
    "name",
    "resume",
    "paths",
    "logger",
    "sweep",
)  # settings of where a run was stored, not of what it computed


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """One run of a report.

    settings: nested and complete, without those in ELSEWHERE. max_steps: the length that the schedule was made for;
    early stopping ends a run after fewer `steps`. extended: where the run got another schedule, or None. code: versions
    of the code by name, with their commits. packages: as in provenance.json.
    machine: the hardware there.
    """

    settings: dict[str, Any]
    seed: int
    steps: int
    max_steps: int
    metrics: Metrics
    best: Metrics
    text_sha256: str
    val_tokens: int
    tokens: int
    parameters: int
    seconds: float
    tokens_per_second: float
    flops_per_token: float | None
    bytes_per_token: float | None
    precision: str | None
    extended: str | None
    fingerprint: str | None
    code_sha256: str | None
    code: list[str]
    commits: dict[str, str]
    versions: dict[str, str]
    packages: dict[str, str]
    machine: dict[str, Any]

    def as_run(self, folder: Path) -> Run:
        """Return the run as the comparison has it, without settings and curve. folder: only a name."""
        shared = {field.name for field in fields(Run)} - {"settings", "metrics", "best", "code"}
        values: dict[str, Any] = {name: value for name, value in vars(self).items() if name in shared}
        numbers = {name: _numbers(getattr(self, name)) for name in ("metrics", "best")}
        return Run(folder=folder, settings={}, code=tuple(self.code), **values | numbers)


def _numbers(metrics: Metrics) -> dict[str, float]:
    return {name: math.nan if value is None else float(value) for name, value in metrics.items()}


def recorded(run: Run) -> RecordedRun:
    """Return what a report keeps of a complete run. It is read from the run's folder."""
    result, settings, origin = read_result(run.folder), read_yaml(run.folder / CONFIG), _origin(run.folder)
    segments = result.history or []
    return RecordedRun(
        settings=as_json({key: value for key, value in completed(settings).items() if key not in ELSEWHERE}),
        max_steps=segments[-1]["max_steps"] if segments else run.steps,
        metrics=finite(run.metrics),
        best=finite(run.best),
        precision=result.precision,
        extended=history.extension(segments),
        fingerprint=origin.data.get("fingerprint"),
        code_sha256=result.code_sha256 or origin.code_sha256,
        code=list(run.code),
        versions=origin.versions,
        packages=origin.packages,
        machine=as_json(dict(origin.hardware)),
        **{
            name: getattr(run, name)
            for name in (
                *("seed", "steps", "text_sha256", "val_tokens", "tokens", "parameters", "seconds"),
                *("tokens_per_second", "flops_per_token", "bytes_per_token", "commits"),
            )
        },
    )


def _origin(folder: Path) -> Provenance:
    try:
        return read_provenance(provenance_files(folder)[-1])
    except (OSError, ValueError, IndexError):
        return Provenance()


def as_json(value: Any) -> Any:
    """Return plain data as JSON has it: other scalars, such as dates and infinity, become text."""
    if isinstance(value, Mapping):
        return {str(key): as_json(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(part) for part in value]
    if isinstance(value, (NoneType, bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


def as_plain(run: RecordedRun) -> dict[str, Any]:
    """Return a recorded run as plain data."""
    return asdict(run)


_TEXT, _COUNT, _NUMBER = (str,), (int,), (int, float)
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("settings", "metrics", "best", "commits", "versions", "packages", "machine"), (dict,)),
    **dict.fromkeys(("seed", "steps", "max_steps", "val_tokens", "tokens", "parameters"), _COUNT),
    **dict.fromkeys(("seconds", "tokens_per_second"), _NUMBER),
    **dict.fromkeys(("flops_per_token", "bytes_per_token"), (*_NUMBER, NoneType)),
    **dict.fromkeys(("precision", "extended", "fingerprint", "code_sha256"), (*_TEXT, NoneType)),
    "text_sha256": _TEXT,
    "code": (list,),
}


def from_plain(plain: Mapping[str, Any]) -> RecordedRun:
    """Return the recorded run in a page's data, which may be untrusted.

    Raises:
        ValueError: a value is missing or of another type.
    """
    for name, kinds in _KINDS.items():
        value = plain.get(name)
        if type(value) not in kinds or (kinds == _COUNT and not 0 <= plain[name] < 2**63):
            raise ValueError(f"{name} is {str(value)[:80]}")
    numbers = [*plain["metrics"].values(), *plain["best"].values()]
    if not all(type(number) in (*_NUMBER, NoneType) for number in numbers):
        raise ValueError("a metric is not a number")
    texts = [*plain["code"], *plain["commits"].values(), *plain["versions"].values(), *plain["packages"].values()]
    if not all(isinstance(text, str) for text in texts) or not plain["steps"]:
        raise ValueError("code, versions or steps are invalid")
    return RecordedRun(**{name: plain[name] for name in _KINDS})
