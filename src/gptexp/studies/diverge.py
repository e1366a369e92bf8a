"""Divergence: the first step and tensor at which two runs part, and the first module whose output differs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptexp.config.fingerprint import flatten
from gptexp.runs.digests import StepDigests, read_digests
from gptexp.runs.layout import CHECKPOINTS, CONFIG
from gptexp.runs.provenance import Provenance, provenance_files, read_provenance
from gptexp.runs.result import find_result
from gptexp.studies.replay_steps import Request
from gptexp.util.errors import RunError
from gptexp.util.yaml_files import read_yaml

PLACES = ("name", "resume", "paths.", "logger.", "sweep.")  # settings of where a run was stored
BEFORE_MODEL = ("windows", "lr")  # if these differ, no module is the cause
MACHINE = ("device", "cpu", "gpus", "torch_threads")


@dataclass(frozen=True)
class Run:
    """A run with digests."""

    folder: Path
    settings: dict[str, Any]
    origin: Provenance
    steps: list[StepDigests]

    @property
    def facts(self) -> dict[str, str]:
        """What may make two runs part, by name."""
        flat = {f"setting {key}": value for key, value in flatten(self.settings).items() if not key.startswith(PLACES)}
        code = {"code": (self.origin.code_sha256 or "unknown")[:8], "data": self.origin.data.get("fingerprint", "")[:8]}
        versions = {f"version of {name}": version for name, version in self.origin.versions.items()}
        machine = {f"machine: {key}": self.origin.hardware.get(key) for key in MACHINE}
        return {
            name: "null" if value is None else str(value) for name, value in (flat | code | versions | machine).items()
        }


@dataclass(frozen=True)
class Parting:
    """Where two runs part. step, tensor: the first that differ. differing, of: tensors at this step. agreed: the last
    step at which all tensors are equal, or None."""

    step: int
    tensor: str
    differing: int
    of: int
    agreed: int | None

    @property
    def can_replay(self) -> bool:
        """Whether the computation of a module may be the cause."""
        return self.step > 0 and self.tensor not in BEFORE_MODEL


def open_run(folder: Path) -> Run:
    """Read a run.

    Raises:
        RunError: no run, or one without digests.
    """
    if not (folder / CONFIG).is_file():
        raise RunError(f"{folder}: no run in it (a run's folder has a {CONFIG})")
    try:
        settings = read_yaml(folder / CONFIG)
        files = provenance_files(folder)
        origin = read_provenance(files[0]) if files else Provenance()
    except (OSError, ValueError) as error:
        raise RunError(str(error)) from None
    steps = read_digests(folder)
    if not isinstance(settings, dict) or not steps:
        raise RunError(f"{folder}: has no digests; train with trainer.digests=true")
    return Run(folder, settings, origin, steps)


def differences(a: Run, b: Run) -> list[tuple[str, str, str]]:
    """Return what differs between two runs besides their tensors: name, in A, in B."""
    facts, others = a.facts, b.facts
    names = dict.fromkeys([*facts, *others])
    return [(n, facts.get(n, "none"), others.get(n, "none")) for n in names if facts.get(n) != others.get(n)]


def first_difference(a: Sequence[StepDigests], b: Sequence[StepDigests]) -> tuple[Parting | None, int]:
    """Return where two runs part, or None, and the number of steps that were compared.

    Raises:
        RunError: no step was logged by both.
    """
    others = {found.step: found.tensors for found in b}
    common = [(found.step, found.tensors, others[found.step]) for found in a if found.step in others]
    if not common:
        raise RunError("no step was logged by both runs; use the same trainer.log_every_steps")
    agreed = None
    for number, (step, first, second) in enumerate(common):
        names = dict.fromkeys([*first, *second])
        if differing := [name for name in names if first.get(name) != second.get(name)]:
            return Parting(step, differing[0], len(differing), len(names), agreed), number + 1
        agreed = step
    return None, len(common)


# ------------------------------------------------------------------------------------ replay


@dataclass(frozen=True)
class Cause:
    """The first computed tensor that differs. what: its name. a, b: the values that differ most of a sample."""

    step: int
    what: str
    a: float | None = None
    b: float | None = None


def replay(a: Run, b: Run, parting: Parting, *, code: Path | None, trust: bool) -> Cause | None:
    """Repeat the steps after the last common one in both runs, and return the first tensor that differs, or None.

    code: folder of the code of B; None: it has the code of this process.

    Raises:
        RunError: a run can't be trained again.
    """
    with tempfile.TemporaryDirectory(prefix="gptexp-diverge-") as place:
        start = _common_checkpoint(a, b, parting.agreed or 0)
        first = max(parting.agreed or 0, start or 0) + 1
        rows = [
            _computed(run, Path(place), name, (first, parting.step), start, source, trust)
            for run, name, source in ((a, "a", None), (b, "b", code))
        ]
        return _first_cause(*rows)


def _common_checkpoint(a: Run, b: Run, at_most: int) -> int | None:
    """The last step, not after `at_most`, of which both runs have a checkpoint."""
    steps = set(_checkpoints(a)) & set(_checkpoints(b))
    return max((step for step in steps if step <= at_most), default=None)


def _checkpoints(run: Run) -> dict[int, Path]:
    from gptexp.runs.opening import load

    found = {}
    for path in sorted((run.folder / CHECKPOINTS).glob("*.ckpt")):
        try:
            found[load(path).step] = path
        except (OSError, ValueError):
            continue
    return found


def _computed(
    run: Run, place: Path, name: str, steps: tuple[int, int], start: int | None, code: Path | None, trust: bool
) -> Iterator[dict[str, Any]]:
    """Train a run in a process of its own, and yield what its modules computed."""
    from gptexp.training.callbacks.outputs import OUTPUTS

    result = find_result(run.folder)
    length = result.history[-1]["max_steps"] if result.history else None
    request: Request = {
        "settings": run.settings,
        "name": str(run.folder),
        "place": str(place),
        "folder": str(place / name),
        "first": steps[0],
        "last": steps[1],
        "max_steps": length,
        "precision": result.precision,
        "device": str(run.origin.hardware.get("device", "")),
        "resume": None if start is None else str(_checkpoints(run)[start].resolve()),
        "trust": trust,
    }
    (place / f"{name}.json").write_text(json.dumps(request, default=str), encoding="utf-8")
    environment = {**os.environ, **({} if code is None else {"PYTHONPATH": str(code.resolve())})}
    command = [sys.executable, "-m", "gptexp.studies.replay_steps", str(place / f"{name}.json")]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    output = place / name / OUTPUTS
    if done.returncode or not output.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise RunError(f"{run.folder}: can't be replayed: {lines[-1].removeprefix('error: ')}")
    with output.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _first_cause(a: Iterator[dict[str, Any]], b: Iterator[dict[str, Any]]) -> Cause | None:
    for first, second in zip(a, b, strict=False):
        if first["what"] != second["what"]:
            return Cause(first["step"], f"{first['what']} in A, {second['what']} in B: the modules are not the same")
        if first["digest"] != second["digest"]:
            pairs = [
                (float(x), float(y)) for x, y in zip(first.get("sample", []), second.get("sample", []), strict=False)
            ]
            most = max(pairs, key=lambda pair: abs(pair[0] - pair[1]), default=(None, None))
            return Cause(first["step"], first["what"], *most)
    return None
