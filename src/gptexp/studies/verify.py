"""Verification: train a run of a report, a sweep or a run folder again, and compare all its numbers."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path

from gptexp.compose.trust import is_in_logs
from gptexp.config import Config
from gptexp.config.kinds import kinds_in, require_installed
from gptexp.report.budget import Reading, flops_per_token, read_at
from gptexp.report.comparison import Comparison
from gptexp.report.data_block import read_report
from gptexp.report.reading import Run, find_runs, read_flat_settings, read_run, read_runs
from gptexp.report.recorded import RecordedRun, recorded
from gptexp.runs.layout import METRICS
from gptexp.runs.provenance import code_version
from gptexp.studies.again import config_for
from gptexp.util.errors import RunError
from gptexp.util.files import display_path, read_rows
from gptexp.util.text import first_line

TIMED = {"step", "tokens_per_second", "mfu", "seconds"}  # columns of metrics.csv that are not computed from the data
KIND = ("machine", "device", "cpu", "gpus", "torch_threads")  # equal on machines of the same kind
ROUNDING = {"64-true": 2.0**-53, "32-true": 2.0**-24}  # largest relative error of one operation; else bf16's
BF16 = 2.0**-9
GROWTH = 8.0
LARGEST = 0.01  # a larger relative difference is never called rounding
COUNTS = ("steps", "tokens", "parameters", "val_tokens", "flops_per_token")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A run that is to be verified.

    row: its label. folder: of a run on this machine. comparison: of a page. reading: what its table shows of the run.
    """

    row: str
    run: RecordedRun
    folder: Path | None = None
    comparison: Comparison | None = None
    reading: Reading | None = None

    @property
    def name(self) -> str:
        return f"{self.row}, seed {self.run.seed}"

    @property
    def cost(self) -> float:
        """The FLOPs of training."""
        run = self.run.as_run()
        return run.tokens * flops_per_token(run, estimated=False)


@dataclass(frozen=True)
class Outcome:
    """What training again gave.

    compared: the number of values. number: the name of the value with the largest relative difference, "" if all are
    bitwise equal; recorded, now: its two values. allowed: the largest difference by rounding, 0 if there must be none.
    """

    compared: int
    number: str = ""
    recorded: float | None = None
    now: float | None = None
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
        reported = read_report(path)
        return [Claim(row=r.label, run=r.run, comparison=r.comparison, reading=r.reading) for r in reported]
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
    return found if everything else [min(found, key=lambda claim: (claim.cost, claim.run.seed))]


def verify(claim: Claim, *, trust: bool, say: Callable[[str], None]) -> Outcome:
    """Train a run again in a temporary folder and compare.

    say: is told what differs before the training starts.

    Raises:
        RunError: the run can't be trained again, or its text is missing or another one.
    """
    run, device = claim.run, claim.run.origin.hardware.get("device", "")
    if run.extended:
        raise RunError(f"{claim.name}: was resumed with another schedule ({run.extended}), which can't be repeated")
    require_installed(kinds_in(run.settings), run.origin.packages, claim.name)
    trust = trust or (claim.folder is not None and is_in_logs(claim.folder, Path("logs")))
    precision = {"precision": run.result.precision} if run.result.precision else {}
    with tempfile.TemporaryDirectory(prefix="gptexp-verify-", ignore_cleanup_errors=True) as temporary, _threads(run):
        place, folder = Path(temporary), Path(temporary) / "run"
        config = config_for(run.settings, place, of=claim.name, trust=trust, device=device, **precision)
        _require_text(config, claim)
        different = _differences(run, config)
        for line in different:
            say(line)
        _train(config, folder, claim)
        now = read_run(folder, read_flat_settings(folder))
        allowed = tolerance(run) if different or device != "cpu" else 0.0
        return compare(*_numbers(claim, now), allowed)


@contextmanager
def _threads(run: RecordedRun) -> Iterator[None]:
    """Compute with the recorded number of threads, which decides the order of sums, if this machine has as many."""
    import torch

    wanted, before = run.origin.hardware.get("torch_threads"), torch.get_num_threads()
    if type(wanted) is int and 0 < wanted <= (os.cpu_count() or 1):
        torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _require_text(config: Config, claim: Claim) -> None:
    """Prepare the text, and refuse another one than the run was trained on."""
    from gptexp.objectives import implementation
    from gptexp.tokenizers import load_tokenizer
    from gptexp.training.starting_point import open_source

    source = open_source(config)
    tokenizer = load_tokenizer(source.tokenizer) if source else config.tokenizer
    data = implementation(config.objective.kind).prepare(config, tokenizer, Path(config.paths.cache))
    fingerprint = claim.run.origin.data.get("fingerprint", data.fingerprint)
    for was, now in ((fingerprint, data.fingerprint), (claim.run.as_run().text_sha256, data.text_sha256)):
        if was != now:
            raise RunError(
                f"{claim.name}: the text or its tokens here differ from those of the run (fingerprint {now[:12]}, "
                f"recorded {was[:12]}); put the same text in place"
            )


def _differences(run: RecordedRun, config: Config) -> list[str]:
    """What differs here from where the run was made, so that bitwise equality is not to be expected."""
    from gptexp.machine import hardware

    here, origin = code_version(config), run.origin
    machine = {"machine": platform.machine(), **hardware.describe(hardware.accelerator_of(config))}
    commit = f" of commit {origin.git.commit[:7]}" if origin.git else ""
    pairs = {f"code{commit}": (", ".join(code[:8] for code in run.code), (here.code_sha256 or "unknown")[:8])}
    pairs |= {f"version of {name}": (origin.versions.get(name, "none"), now) for name, now in here.versions.items()}
    pairs |= {f"machine, {key}": (str(origin.hardware.get(key)), str(machine.get(key))) for key in KIND}
    return [f"{what}: it was {was}, here it is {now}" for what, (was, now) in pairs.items() if was != now]


def _train(config: Config, folder: Path, claim: Claim) -> None:
    """Train; the progress goes to standard error."""
    from gptexp.training.experiment import run_experiment

    try:
        with redirect_stdout(sys.stderr):
            run_experiment(config, folder, steps=claim.run.max_steps)
    except (RuntimeError, MemoryError) as error:  # too large for this machine
        raise RunError(f"{claim.name}: can't be trained here: {first_line(error)}") from None


def tolerance(run: RecordedRun) -> float:
    """Return the largest relative difference of two curves that only rounding makes.

    Each step adds GROWTH rounding errors of its precision: in float32 1e-5 over 20 steps. docs/verify.md has the
    measurements. Muon's iteration rounds to bfloat16 where the processor multiplies it, and the other run's may have.
    """
    muon = run.settings["optimizer"].get("kind") == "muon"
    unit = BF16 if muon else ROUNDING.get(run.result.precision or "32-true", BF16)
    return min(LARGEST, GROWTH * unit * (1 + run.as_run().steps))


Numbers = dict[str, float | None]


def _numbers(claim: Claim, now: Run) -> tuple[Numbers, Numbers]:
    """All computed numbers by name: the recorded ones, and those of the new run."""
    was, found = ({**run.metrics, **_more(run)} for run in (claim.run.as_run(), now))
    c, read = claim.comparison, claim.reading
    if c and read and c.budget and c.question.at not in (None, "seconds"):  # a time is measured, not computed
        again = read_at(now, c.metric, str(c.question.at), c.budget, c.flops_estimated)
        for numbers, reading in ((was, read), (found, again)):
            numbers |= {f"{c.metric} at the budget": reading.value, "FLOPs at the budget": reading.flops}
    if claim.folder is not None:  # of the steps that both logged: a resumed run may lack its first ones
        logged, again_logged = _logged(claim.folder), _logged(now.folder)
        both = logged.keys() & again_logged.keys()
        was |= {name: value for name, value in logged.items() if name in both}
        found |= {name: again_logged[name] for name in logged if name in both}
    return was, found


def _more(run: Run) -> Numbers:
    best = {f"best {name}": value for name, value in run.best.items()}
    return {**best, **{name: getattr(run, name) for name in COUNTS}}


def _logged(folder: Path) -> Numbers:
    try:
        rows = read_rows(folder / METRICS)
        cells = [(name, row["step"], value) for row in rows for name, value in row.items() if name not in TIMED]
        return {f"{name} at step {step}": float(value) for name, step, value in cells if value}
    except (OSError, ValueError, KeyError):
        return {}


def compare(recorded: Numbers, now: Numbers, allowed: float) -> Outcome:
    """Return the outcome, with the largest relative difference of a number; a missing number differs infinitely."""
    worst = Outcome(len(recorded))
    for name in dict.fromkeys([*recorded, *now]):
        a, b = recorded.get(name), now.get(name)
        gap = _gap(a, b)
        if gap > worst.difference:
            worst = Outcome(len(recorded), name, a, b, gap, allowed)
    return worst


def _gap(a: float | None, b: float | None) -> float:
    if a is None or b is None or not (isfinite(a) and isfinite(b)):
        return 0.0 if repr(a) == repr(b) else inf
    return 0.0 if a == b else abs(a - b) / max(abs(a), abs(b))
