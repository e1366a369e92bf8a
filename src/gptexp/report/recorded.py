"""What a report keeps of each run, as plain data, so that `gptexp verify` can train it again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any

from gptexp.config.fingerprint import completed
from gptexp.report.reading import Run, make_run
from gptexp.runs import history, provenance
from gptexp.runs.layout import CONFIG
from gptexp.runs.provenance import Provenance, provenance_files, read_provenance
from gptexp.runs.result import Result, read_result
from gptexp.runs.result import from_plain as result_from_plain
from gptexp.util.yaml_files import read_yaml

ELSEWHERE = (
    "name",
    "resume",
    "paths",
    "logger",
    "sweep",
    "prepare",
)  # settings of where a run is, not of what it computed


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """One run of a report: its settings, nested and without those in ELSEWHERE, its outcome, and its origin without
    command, directory and changes of the code. seconds: of training."""

    settings: dict[str, Any]
    result: Result
    origin: Provenance
    seconds: float

    @property
    def seed(self) -> int:
        return int(self.settings["seed"])

    @property
    def max_steps(self) -> int:
        """The length that the schedule was made for; early stopping ends a run after fewer steps."""
        segments = self.result.history
        return segments[-1]["max_steps"] if segments else self.as_run().steps

    @property
    def extended(self) -> str | None:
        """Where the run got another schedule; None if nowhere."""
        return history.extension(self.result.history or [])

    @property
    def code(self) -> list[str]:
        """The hashes of the code that trained it, the last one at the end."""
        hashes = [part["code_sha256"] or "unknown" for part in self.result.history or []]
        return list(dict.fromkeys([*hashes, self.result.code_sha256 or self.origin.code_sha256 or "unknown"]))

    def as_run(self, folder: Path = Path()) -> Run:
        """Return the run as a comparison has it, without settings and curve. folder: only a name.

        Raises:
            ValueError: its result is incomplete.
        """
        return make_run(folder, {"seed": self.seed}, self.result, self.seconds)


def recorded(run: Run) -> RecordedRun:
    """Return what a report keeps of a complete run. It is read from the run's folder."""
    settings = completed(read_yaml(run.folder / CONFIG))
    try:
        origin = read_provenance(provenance_files(run.folder)[-1])
    except (OSError, ValueError, IndexError):
        origin = Provenance()
    return RecordedRun(
        settings={key: value for key, value in settings.items() if key not in ELSEWHERE},
        result=read_result(run.folder),
        origin=replace(origin, command="", directory=None, git=origin.git and replace(origin.git, diff=None)),
        seconds=run.seconds,
    )


def as_plain(run: RecordedRun) -> dict[str, Any]:
    """Return a recorded run as plain data."""
    result = {name: value for name, value in run.result.as_plain().items() if value is not None}
    plain: dict[str, Any] = as_json({**vars(run), "result": result, "origin": asdict(run.origin)})
    return plain


def from_plain(plain: Mapping[str, Any]) -> RecordedRun:
    """Return the recorded run in a page's data, which may be untrusted.

    Raises:
        ValueError, TypeError, KeyError: a value is missing or of another type.
    """
    run = RecordedRun(
        settings=dict(plain["settings"]),
        result=result_from_plain(plain["result"]),
        origin=provenance.from_plain(plain["origin"]),
        seconds=float(plain["seconds"]),
    )
    if type(run.settings["seed"]) is not int:
        raise ValueError("seed is not a whole number")
    run.as_run()
    return run


def as_json(value: Any) -> Any:
    """Return plain data as JSON has it: other scalars, such as dates and infinity, become text."""
    if isinstance(value, Mapping):
        return {str(key): as_json(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(part) for part in value]
    if isinstance(value, (NoneType, bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)
