"""Run folders as values: settings, final metrics, costs, validation curve; or why a folder can't be read."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gptexp.config import KINDS
from gptexp.config.fingerprint import completed, flatten
from gptexp.report.curves import Curve, read_curve
from gptexp.runs import history, samples
from gptexp.runs.layout import CONFIG, PROVENANCE, RESULT
from gptexp.runs.provenance import provenance_files, read_provenance
from gptexp.runs.result import COMPLETED, FAILED, Metrics, Result, read_result
from gptexp.util.errors import RunError
from gptexp.util.yaml_files import read_yaml

NO_RUN = f"no run in it or below it (a run's folder has a {CONFIG})"
EFFECTIVE_LR = "optimizer.effective_lr"  # what `optimizer.lr: null` came to
Number = TypeVar("Number", int, float)
LARGEST = 1e100  # a metric beyond it is no number to reckon with


class Unreadable(ValueError):
    """Why a run folder can't take part; the message completes "left out: FOLDER: …"."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One finished run.

    metrics, best: by name (val/bpb …), of the last step and of the best; nan where it was no finite number.
    flops_per_token: as the run recorded it, or None; bytes_per_token: of the training text, or None.
    seconds: of training, without validation. finished: when result.json was written (seconds since 1970).
    code: names of the versions of the code that trained it, in order; commits: of those that are hashes, the commit.
    """

    folder: Path
    settings: dict[str, Any]
    seed: int
    metrics: dict[str, float]
    best: dict[str, float]
    text_sha256: str
    val_tokens: int
    steps: int
    tokens: int
    parameters: int
    seconds: float
    tokens_per_second: float
    bytes_per_token: float | None = None
    flops_per_token: float | None = None
    curve: Curve | None = None
    curve_problem: str = ""
    origin: dict[str, str] = field(default_factory=dict)
    code: tuple[str, ...] = ()
    commits: dict[str, str] = field(default_factory=dict)
    finished: float = 0.0


@dataclass(frozen=True)
class LeftOut:
    """A run that takes no part, and why; its flat settings where they could be read."""

    folder: Path
    reason: str
    settings: dict[str, Any] | None = None


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """The run folders among and below these folders, each once, in natural order.

    A folder with no run in it comes last, as itself, so that it is left out with the reason.

    Raises:
        RunError: a folder that isn't there, or no run in any.
    """
    found: dict[Path, Path] = {}
    empty: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise RunError(f"{folder}: no such folder; give run folders, or folders that hold some")
        runs = list(_below(folder))
        if not runs:
            empty.append(folder)
        for run in sorted(runs, key=lambda path: natural(str(path))):
            found.setdefault(run.resolve(), run)
    if not found and empty:
        raise RunError(f"{empty[0]}: {NO_RUN}")
    return [*found.values(), *empty]


def _below(folder: Path) -> Iterator[Path]:
    """Folders with a config.yaml; what lies inside one belongs to it."""
    for place, folders, files in os.walk(folder):
        if CONFIG in files:
            folders.clear()
            yield Path(place)
        else:
            folders[:] = [name for name in folders if not name.startswith(".")]


def natural(text: str) -> list[tuple[int, int, str]]:
    """A sort key that puts job 2 before job 10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def read_runs(folders: Iterable[Path]) -> tuple[list[Run], list[LeftOut]]:
    """Read each folder; what can't be read, or hasn't finished, is named with its reason."""
    runs, left_out = [], []
    for folder in folders:
        settings = None
        try:
            settings = read_settings(folder)
            runs.append(read_run(folder, settings))
        except Unreadable as reason:
            left_out.append(LeftOut(folder, str(reason), settings))
    return runs, left_out


def read_run(folder: Path, settings: dict[str, Any]) -> Run:
    """Read the result of a run whose settings have been read.

    Raises:
        Unreadable: unfinished or damaged.
    """
    try:
        result = read_result(folder)
    except FileNotFoundError:
        raise Unreadable(f"unfinished: no {RESULT}") from None
    except (OSError, ValueError) as error:
        raise Unreadable(f"{RESULT} is damaged: {_first_line(error, folder / RESULT)}") from None
    if result.status == FAILED:
        raise Unreadable(f"failed: {' '.join(str(result.error).split())[:160]}")
    if result.status != COMPLETED:
        raise Unreadable(f"unfinished: its status is {result.status!r}")
    try:
        return _run(folder, settings, result)
    except ValueError as error:
        raise Unreadable(f"{RESULT} is damaged: {error}") from None


def read_settings(folder: Path) -> dict[str, Any]:
    """config.yaml, flat.

    Raises:
        Unreadable: not there, damaged, or of another program.
    """
    if not (folder / CONFIG).exists():
        raise Unreadable(NO_RUN)
    try:
        settings = read_yaml(folder / CONFIG)
    except (OSError, ValueError) as error:
        raise Unreadable(f"{CONFIG} can't be read: {_first_line(error, folder / CONFIG)}") from None
    groups = ("model", "tokenizer", "data", "trainer")
    if not isinstance(settings, dict) or not all(isinstance(settings.get(group), dict) for group in groups):
        raise Unreadable(f"{CONFIG} holds no settings of a gptexp run")
    if type(settings.get("seed")) is not int:
        raise Unreadable(f"{CONFIG} holds no seed")
    scalar = (type(None), bool, int, float, str)
    flat = flatten(completed(settings))
    if flat.get("optimizer.lr") is None:  # both are kept: a rate that follows the model is another choice
        flat[EFFECTIVE_LR] = _natural_lr(settings["model"])
    return {key: value if isinstance(value, scalar) else str(value) for key, value in flat.items()}


def _natural_lr(model: dict[str, Any]) -> float | None:
    """What `optimizer.lr: null` means for a model; None where its settings are not those of a known kind."""
    schema = KINDS["model"].get(str(model.get("kind")))
    if schema is None or "${" in str(model):
        return None
    try:
        return float(OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), model)).natural_lr)  # type: ignore[union-attr]
    except (OmegaConfBaseException, ValueError, ArithmeticError):
        return None


def _as_computed(settings: dict[str, Any], result: Result) -> dict[str, Any]:
    """The settings with what they came to: `auto` and null as values, and where an extended run was extended.

    bf16 on one machine and float32 on another are two experiments, as are two peak learning rates.
    """
    found = dict(settings)
    if result.precision is not None:
        found["trainer.precision"] = result.precision
    if EFFECTIVE_LR in settings and result.peak_lr is not None:
        found[EFFECTIVE_LR] = float(result.peak_lr)
    if extended := history.extension(result.history or []):
        found["schedule.extended"] = extended
    return found


def _run(folder: Path, settings: dict[str, Any], result: Result) -> Run:
    steps, tokens = _needed("steps", result.steps), _needed("tokens", result.tokens)
    rate = float(_needed("tokens_per_second", result.tokens_per_second))
    curve, problem = read_curve(folder, tokens_per_step=tokens / steps)
    val_tokens, sha = result.val.get("texts", result.val.get("tokens")), result.val.get("text_sha256")
    if not isinstance(sha, str):
        raise ValueError("no text_sha256")
    if type(val_tokens) is not int or not 0 < val_tokens < 2**63:
        raise ValueError(f"the size of its validation text is {val_tokens!r}")
    code, commits = _code(folder, result)
    return Run(
        folder=folder,
        settings=_as_computed(settings, result),
        seed=settings["seed"],
        metrics=_metrics(result.metrics),
        best=_metrics(result.best),
        text_sha256=sha,
        val_tokens=val_tokens,
        steps=steps,
        tokens=tokens,
        parameters=_needed("parameters", result.parameters),
        seconds=_seconds(result, curve, tokens, rate),
        tokens_per_second=rate,
        bytes_per_token=result.bytes_per_token,
        flops_per_token=result.flops_per_token,
        curve=curve,
        curve_problem=problem,
        origin=_origin(folder / PROVENANCE),
        code=code,
        commits=commits,
        finished=(folder / RESULT).stat().st_mtime,
    )


def _seconds(result: Result, curve: Curve | None, tokens: int, rate: float) -> float:
    """Training seconds of the whole run; result.json counts those since the last resume."""
    if curve is not None and curve.seconds is not None and not curve.seconds_derived:
        return float(curve.seconds[-1])
    if result.resumed_from:
        return tokens / rate
    return float(_needed("seconds", result.seconds if result.training_seconds is None else result.training_seconds))


def _needed(name: str, value: Number | None) -> Number:
    if value is None:
        raise ValueError(f"no {name}")
    return value


def _metrics(values: Metrics) -> dict[str, float]:
    """Return the metrics with nan for each value that is not finite."""
    return {name: math.nan if x is None or not abs(x) < LARGEST else float(x) for name, x in values.items()}


def _origin(path: Path) -> dict[str, str]:
    """Return device and data from provenance.json; nothing if it is missing or damaged."""
    try:
        found = read_provenance(path)
    except (OSError, ValueError):
        return {}
    hardware, gpus = found.hardware, found.hardware.get("gpus")
    cpu = f"{hardware['cpu']}, {hardware.get('torch_threads')} threads" if "cpu" in hardware else None
    known = {"device": f"{len(gpus)} × {gpus[0]}" if gpus else cpu, "data": found.data.get("fingerprint")}
    return {name: value for name, value in known.items() if value is not None}


def _code(folder: Path, result: Result) -> tuple[tuple[str, ...], dict[str, str]]:
    """The versions of the code that trained a run, and their commits where both are known.

    A version is a hash of the code, since a commit may change something else; a commit where that is all there is.
    A resumed run writes provenance-<step>.json beside provenance.json, so all of them are read.
    """
    commits = dict(filter(None, map(_commit, provenance_files(folder))))
    hashes = [sha for part in result.history or [] if (sha := part.get("code_sha256"))]
    named = [sha[:8] for sha in hashes] or commits.values()
    return tuple(dict.fromkeys(named)), {sha[:8]: commits[sha] for sha in hashes if sha in commits}


def _commit(path: Path) -> tuple[str, str] | None:
    """The code's hash (or the file's name, where there is none) and its commit, as a provenance file says them."""
    try:
        found = read_provenance(path)
    except (OSError, ValueError):
        return None
    if found.git is None:
        return None
    diff = (found.git.diff or "").encode(errors="surrogatepass")
    changes = f" with changes {hashlib.sha256(diff).hexdigest()[:4]}" if diff else ""
    return found.code_sha256 or path.name, f"commit {found.git.commit[:7]}{changes}"


def last_sample(folder: Path) -> str:
    """What the model wrote at its last validation; empty where there is nothing readable."""
    try:
        written = samples.read(folder)
    except OSError:
        return ""
    return written[-1][1] if written else ""


def _first_line(error: Exception, path: Path) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).removeprefix(f"{path}: ").split())[:160]
