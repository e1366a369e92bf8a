"""Divergence: the first step and tensor at which two runs part, and the first module whose output differs."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptexp.compose.trust import is_in_logs
from gptexp.config.fingerprint import flatten
from gptexp.runs.digests import StepDigests, read_digests
from gptexp.runs.layout import CHECKPOINTS, CONFIG
from gptexp.runs.provenance import Provenance, provenance_files, read_provenance
from gptexp.runs.result import find_result
from gptexp.studies.replay_steps import start
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
        origin = self.origin
        flat = {f"setting {key}": value for key, value in flatten(self.settings).items() if not key.startswith(PLACES)}
        facts = flat | {"code": (origin.code_sha256 or "")[:8], "data": origin.data.get("fingerprint", "")[:8]}
        facts |= {f"version of {name}": version for name, version in origin.versions.items()}
        facts |= {f"machine, {key}": origin.hardware.get(key) for key in MACHINE}
        return {name: "null" if value is None else str(value) for name, value in facts.items()}


@dataclass(frozen=True)
class Parting:
    """Where two runs part: the first step and tensor that differ, and how many tensors of that step.

    agreed: the last step before it at which all tensors are equal, or None.
    """

    step: int
    tensor: str
    differing: int
    of: int
    agreed: int | None

    @property
    def can_replay(self) -> bool:
        """Whether the computation of a module may be the cause."""
        return self.step > 0 and self.tensor not in BEFORE_MODEL


@dataclass(frozen=True)
class Cause:
    """The first computed tensor that differs. a, b: the values that differ most in a sample of it, if there is one."""

    step: int
    what: str
    a: float | None = None
    b: float | None = None


def open_run(folder: Path) -> Run:
    """Read a run.

    Raises:
        RunError: no run, or one without digests.
    """
    if not (folder / CONFIG).is_file():
        raise RunError(f"{folder}: no run in it (a run's folder has a {CONFIG})")
    settings, files, steps = read_yaml(folder / CONFIG), provenance_files(folder), read_digests(folder)
    if not isinstance(settings, dict) or not steps:
        raise RunError(f"{folder}: has no digests; train with trainer.digests=true")
    return Run(folder, settings, read_provenance(files[0]) if files else Provenance(), steps)


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
    for number, (step, first, second) in enumerate(common, 1):
        names = dict.fromkeys([*first, *second])
        if differing := [name for name in names if first.get(name) != second.get(name)]:
            return Parting(step, differing[0], len(differing), len(names), agreed), number
        agreed = step
    return None, len(common)


def replay(a: Run, b: Run, parting: Parting, *, code: Path | None, trust: bool) -> Cause | None:
    """Repeat the steps after the last common one in both runs; return the first tensor that differs, or None.

    They start from a checkpoint if both runs have one of a step at which they agree, else from the beginning.
    code: folder of the code of B; None: it has the code of this process.

    Raises:
        RunError: a run can't be trained again.
    """
    agreed = parting.agreed or 0
    stored = [{step: path for step, path in _checkpoints(run) if step <= agreed} for run in (a, b)]
    at = max(stored[0].keys() & stored[1].keys(), default=0)
    with tempfile.TemporaryDirectory(prefix="gptexp-diverge-", ignore_cleanup_errors=True) as place:
        rows = [
            _computed(run, Path(place), name, (agreed + 1, parting.step), paths.get(at), source, trust)
            for run, name, paths, source in ((a, "a", stored[0], None), (b, "b", stored[1], code))
        ]
        return _first_cause(*rows)


def _checkpoints(run: Run) -> Iterator[tuple[int, Path]]:
    from gptexp.runs.opening import load

    for path in sorted((run.folder / CHECKPOINTS).glob("*.ckpt")):
        yield load(path).step, path.resolve()


def _computed(
    run: Run, place: Path, name: str, steps: tuple[int, int], at: Path | None, code: Path | None, trust: bool
) -> Iterator[dict[str, Any]]:
    """Train a run in a process of its own, and yield what its modules computed."""
    from gptexp.training.callbacks.outputs import OUTPUTS

    result = find_result(run.folder)
    request = {
        "settings": run.settings,
        "of": run.folder,
        "place": place,
        "folder": place / name,
        "steps": steps,
        "max_steps": result.history[-1]["max_steps"] if result.history else None,
        "precision": result.precision,
        "device": run.origin.hardware.get("device", ""),
        "resume": at,
        "trust": trust or is_in_logs(run.folder, Path("logs")),
    }
    environment = {**os.environ, **({} if code is None else {"PYTHONPATH": str(code.resolve())})}
    threads = run.origin.hardware.get("torch_threads")
    if type(threads) is int and 0 < threads <= (os.cpu_count() or 1):
        environment["OMP_NUM_THREADS"] = str(threads)  # decides the order of sums
    command = start(request, place / f"{name}.json")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise RunError(f"{run.folder}: can't be replayed: {lines[-1].removeprefix('error: ')}")
    with (place / name / OUTPUTS).open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _first_cause(a: Iterator[dict[str, Any]], b: Iterator[dict[str, Any]]) -> Cause | None:
    for first, second in zip(a, b, strict=False):
        if first["what"] != second["what"]:
            return Cause(first["step"], f"{first['what']} in A, {second['what']} in B: the modules are not the same")
        if first["digest"] != second["digest"]:
            samples = [[float(value) for value in row.get("sample", [])] for row in (first, second)]
            pairs = zip(*samples, strict=False)
            x, y = max(pairs, key=lambda pair: abs(pair[0] - pair[1]), default=(None, None))
            return Cause(first["step"], first["what"], x, y)
    return None
