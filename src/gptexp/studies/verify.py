"""Verification: train a run of a report, a sweep or a run folder again, and compare all its numbers."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from gptexp.config import Config
from gptexp.config.kinds import kinds_in, require_installed
from gptexp.report.budget import Reading, read_at
from gptexp.report.data_block import Report, read_report
from gptexp.report.reading import Run, find_runs, read_flat_settings, read_run, read_runs
from gptexp.report.recorded import RecordedRun, recorded
from gptexp.runs.layout import METRICS
from gptexp.runs.provenance import code_version
from gptexp.studies.again import config_for
from gptexp.util.errors import RunError
from gptexp.util.files import display_path, read_rows

TIMED = {"step", "tokens_per_second", "mfu", "seconds"}  # columns of metrics.csv that are not computed from the data
KIND = ("machine", "device", "cpu", "gpus", "torch_threads")  # equal on machines of the same kind
ROUNDING = {"64-true": 2.0**-53, "32-true": 2.0**-24}  # largest relative error of one operation; else bf16's
BF16 = 2.0**-9
GROWTH = 8.0
LARGEST = 0.01  # a larger relative difference is never called rounding

Number = float | int | None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A run that is to be verified.

    row: its label. folder: of a run on this machine. report, reading: of a page, and with --at what its table shows.
    """

    row: str
    run: RecordedRun
    folder: Path | None = None
    report: Report | None = None
    reading: Reading | None = None

    @property
    def name(self) -> str:
        return f"{self.row}, seed {self.run.seed}"

    @property
    def cost(self) -> float:
        """The FLOPs of training; without a record, 6 per parameter and token."""
        per_token = self.run.flops_per_token
        return self.run.tokens * (6.0 * self.run.parameters if per_token is None else per_token)


@dataclass(frozen=True)
class Outcome:
    """What training again gave.

    compared: the number of values. number: the name of the value with the largest relative difference, "" if all are
    bitwise equal; recorded, now: its two values. allowed: the largest difference by rounding, 0 if there must be none.
    """

    compared: int
    number: str = ""
    recorded: Number = None
    now: Number = None
    difference: float = 0.0
    allowed: float = 0.0

    @property
    def holds(self) -> bool:
        return self.difference <= self.allowed


def read_claims(path: Path) -> list[Claim]:
    """Return the runs of a page, a sweep or a run folder.

    Raises:
        RunError: no such page or run. PageChanged: the page was changed.
    """
    if path.is_file():
        report = read_report(path)
        return [
            Claim(row=row.label, run=run, report=report, reading=reading if report.at else None)
            for row in report.rows
            for run, reading in zip(row.runs, row.readings, strict=True)
        ]
    runs, left_out = read_runs(find_runs([path]))
    if not runs:
        raise RunError(f"{path}: no finished run in it; the first: {left_out[0].folder}: {left_out[0].reason}")
    return [Claim(row=display_path(run.folder), run=recorded(run), folder=run.folder) for run in runs]


def choose(claims: Sequence[Claim], row: str | None, everything: bool) -> list[Claim]:
    """Return the cheapest run, or all, of a row or of all rows.

    Raises:
        RunError: no row of this name.
    """
    found = [claim for claim in claims if row in (None, claim.row)]
    if not found:
        names = "; ".join(dict.fromkeys(claim.row for claim in claims))
        raise RunError(f"--row={row}: no such row; give one of: {names or 'none, because all runs diverged'}")
    return list(found) if everything else [min(found, key=lambda claim: (claim.cost, claim.run.seed))]


def notices(claim: Claim) -> list[str]:
    """Return what differs here from where the run was made, so that bitwise equality is not to be expected."""
    here, run = code_version(claim.run.settings), claim.run
    found = []
    if run.code_sha256 != here.code_sha256:
        was = (run.code_sha256 or "unknown")[:8]
        commit = f" ({run.commits[was]})" if was in run.commits else ""
        found.append(f"code: it was {was}{commit}, here it is {(here.code_sha256 or 'unknown')[:8]}")
    changed = [
        n for n in sorted(run.versions.keys() | here.versions.keys()) if run.versions.get(n) != here.versions.get(n)
    ]
    found += [f"version of {n}: it was {run.versions.get(n)}, here it is {here.versions.get(n)}" for n in changed]
    machine = _machine()
    found += [
        f"machine: {key} was {run.machine.get(key)}, here it is {machine.get(key)}"
        for key in KIND
        if run.machine.get(key) != machine.get(key) and (key in machine or key in run.machine)
    ]
    return found


def _machine() -> dict[str, object]:
    from torch import cuda

    from gptexp.machine import hardware

    device = "cuda" if cuda.is_available() else "cpu"
    return {"machine": platform.machine(), **hardware.describe(device)}


def verify(claim: Claim, *, trust: bool, say: Callable[[str], None]) -> Outcome:
    """Train a run again in a temporary folder and compare.

    say: is told what differs before the training starts.

    Raises:
        RunError: the run can't be trained again, or its text is missing or another one.
    """
    run = claim.run
    if run.extended:
        raise RunError(
            f"{claim.name}: was resumed with another schedule ({run.extended}); only its parts can be trained"
        )
    require_installed(kinds_in(run.settings), run.packages, claim.name)
    with tempfile.TemporaryDirectory(prefix="gptexp-verify-") as place:
        precision = {} if run.precision is None else {"precision": run.precision}
        config = config_for(
            run.settings,
            Path(place),
            of=claim.name,
            trust=trust,
            device=str(run.machine.get("device", "")),
            **precision,
        )
        _require_text(config, claim)
        folder = Path(place) / "run"
        with _threads(run):
            different = notices(claim)
            for line in different:
                say(line)
            _train(config, folder, run.max_steps)
        now = read_run(folder, read_flat_settings(folder))
        strict = not different and run.machine.get("device") == "cpu"
        allowed = 0.0 if strict else tolerance(run)
        was, found = _numbers(claim, None), _numbers(claim, now)
        if claim.folder is not None:  # of the steps that both logged: a resumed run may lack its first ones
            logged, again = _logged(claim.folder), _logged(folder)
            both = logged.keys() & again.keys()
            was |= {name: value for name, value in logged.items() if name in both}
            found |= {name: value for name, value in again.items() if name in both}
        return compare(was, found, allowed)


def _require_text(config: Config, claim: Claim) -> None:
    """Prepare the text, and refuse another one than the run was trained on."""
    from gptexp.objectives import implementation
    from gptexp.tokenizers import load_tokenizer
    from gptexp.training.starting_point import open_source

    source = open_source(config)
    tokenizer = load_tokenizer(source.tokenizer) if source else config.tokenizer
    data = implementation(config.objective.kind).prepare(config, tokenizer, Path(config.paths.cache))
    pairs = {
        "data fingerprint": (claim.run.fingerprint or data.fingerprint, data.fingerprint),
        "validation text": (claim.run.text_sha256, data.text_sha256),
    }
    for what, (was, now) in pairs.items():
        if was != now:
            raise RunError(
                f"{claim.name}: the text or its tokens here differ from those of the run ({what} {now[:12]}, "
                f"recorded {was[:12]}); put the same text in place"
            )


@contextmanager
def _threads(run: RecordedRun) -> Iterator[None]:
    """Compute with the recorded number of threads, which decides the order of sums, if this machine has as many."""
    import torch

    wanted, before = run.machine.get("torch_threads"), torch.get_num_threads()
    if type(wanted) is int and 0 < wanted <= (os.cpu_count() or 1):
        torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(config: Config, folder: Path, steps: int) -> None:
    """Train; the progress goes to standard error."""
    from gptexp.training.experiment import run_experiment

    with redirect_stdout(sys.stderr):
        run_experiment(config, folder, steps=steps)


def tolerance(run: RecordedRun) -> float:
    """Return the largest relative difference of two curves that only rounding makes.

    Each step adds GROWTH rounding errors of its precision: in float32 1e-5 over 20 steps. docs/verify.md has the
    measurements. Muon's iteration rounds to bfloat16 in every precision.
    """
    muon = run.settings["optimizer"].get("kind") == "muon"
    unit = BF16 if muon else ROUNDING.get(run.precision or "32-true", BF16)
    return min(LARGEST, GROWTH * unit * (1 + run.steps))


def _numbers(claim: Claim, now: Run | None) -> dict[str, Number]:
    """All computed numbers of a run by name: the recorded ones, or those of the new run `now`."""
    run = claim.run if now is None else recorded(now)
    found: dict[str, Number] = dict(run.metrics)
    found |= {f"best {name}": value for name, value in run.best.items()}
    found |= {name: getattr(run, name) for name in ("steps", "tokens", "parameters", "val_tokens", "flops_per_token")}
    report, reading = claim.report, claim.reading
    if (
        report and report.at and reading and report.amount is not None and report.at != "seconds"
    ):  # time is not computed
        if now is not None:
            reading = read_at(now, report.metric, report.at, report.amount, report.flops_estimated)
        found |= {f"{report.metric} at the budget": reading.value, "FLOPs at the budget": reading.flops}
    return found


def _logged(folder: Path) -> dict[str, Number]:
    try:
        rows = read_rows(folder / METRICS)
    except (OSError, ValueError):
        return {}
    return {
        f"{name} at step {row.get('step')}": float(value)
        for row in rows
        for name, value in row.items()
        if name not in TIMED and value
    }


def compare(recorded: dict[str, Number], now: dict[str, Number], allowed: float) -> Outcome:
    """Return the outcome, with the largest relative difference of a number; a missing number differs infinitely."""
    worst = Outcome(len(recorded))
    for name in dict.fromkeys([*recorded, *now]):
        a, b = recorded.get(name), now.get(name)
        if a == b or (_is_nan(a) and _is_nan(b)):
            continue
        both = a is not None and b is not None and isfinite(a) and isfinite(b) and name in recorded and name in now
        gap = abs(a - b) / max(abs(a), abs(b)) if both and a is not None and b is not None else float("inf")
        if gap > worst.difference:
            worst = Outcome(len(recorded), name, a, b, gap, allowed)
    return worst


def _is_nan(value: Number) -> bool:
    return value is None or value != value
