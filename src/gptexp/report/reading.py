"""Reads run folders: settings, final metrics, costs and validation curve, or the reason why a run is excluded."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gptexp.config import KINDS
from gptexp.config.fingerprint import completed, flatten
from gptexp.config.length import LENGTHS, asked
from gptexp.report.curves import Curve, read_curve
from gptexp.report.origin import code_versions, natural, origin
from gptexp.runs import history, samples
from gptexp.runs.layout import CONFIG, PROVENANCE, RESULT
from gptexp.runs.result import COMPLETED, FAILED, Metrics, Result, read_result
from gptexp.util.errors import RunError
from gptexp.util.yaml_files import read_yaml

NO_RUN = f"no run in it or below it (a run's folder has a {CONFIG})"
EFFECTIVE_LR = "optimizer.effective_lr"  # the rate that `optimizer.lr: null` resolved to
LARGEST = 1e100  # a larger metric counts as diverged; its square would overflow
Number = TypeVar("Number", int, float)


class Unreadable(ValueError):
    """A run folder cannot be included; the message completes "left out: FOLDER: …"."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One complete run.

    metrics, best: by name (val/bpb …), of the last and of the best step; nan if not finite.
    val_tokens: tokens scored in validation, or texts if the objective scores texts.
    asked: the setting that gives its length, by name. max_steps: its length, which early stopping may have cut.
    flops_per_token: as recorded, or None. bytes_per_token: of the training text, or None.
    seconds: of training, without validation. finished: when result.json was written (seconds since 1970).
    part_texts: hash of the validation text of each part of a mixture.
    code: names of the versions of the code that trained it, in order. commits: the commits of those that are hashes.
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
    asked: dict[str, int | float | str] = field(default_factory=dict)
    max_steps: int | None = None
    curve: Curve | None = None
    curve_problem: str = ""
    origin: dict[str, str] = field(default_factory=dict)
    part_texts: dict[str, str] = field(default_factory=dict)
    code: tuple[str, ...] = ()
    commits: dict[str, str] = field(default_factory=dict)
    finished: float = 0.0


@dataclass(frozen=True)
class LeftOut:
    """An excluded run with the reason, and its flat settings if they could be read."""

    folder: Path
    reason: str
    settings: dict[str, Any] | None = None


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """Return the run folders among and below these folders, each once, in natural order.

    A folder without a run comes last, so that it is excluded with the reason.

    Raises:
        RunError: a folder that does not exist, or no run in any.
    """
    found: dict[Path, Path] = {}
    empty: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise RunError(f"{folder}: no such folder; give run folders, or folders that contain some")
        runs = list(_below(folder))
        if not runs:
            empty.append(folder)
        for run in sorted(runs, key=lambda path: natural(str(path))):
            found.setdefault(run.resolve(), run)
    if not found and empty:
        raise RunError(f"{empty[0]}: {NO_RUN}")
    return [*found.values(), *empty]


def _below(folder: Path) -> Iterator[Path]:
    """Folders with a config.yaml; folders inside them belong to the same run."""
    for place, folders, files in os.walk(folder):
        if CONFIG in files:
            folders.clear()
            yield Path(place)
        else:
            folders[:] = [name for name in folders if not name.startswith(".")]


def read_runs(folders: Iterable[Path]) -> tuple[list[Run], list[LeftOut]]:
    """Read each folder; return the complete runs, and the others with the reason."""
    runs, left_out = [], []
    for folder in folders:
        settings = None
        try:
            settings = read_flat_settings(folder)
            runs.append(read_run(folder, settings))
        except Unreadable as reason:
            left_out.append(LeftOut(folder, str(reason), settings))
    return runs, left_out


def read_run(folder: Path, settings: dict[str, Any]) -> Run:
    """Read the result of a run with these flat settings.

    Raises:
        Unreadable: unfinished or damaged.
    """
    try:
        result = read_result(folder)
    except FileNotFoundError:
        raise Unreadable(f"unfinished: no {RESULT}") from None
    except (OSError, ValueError) as error:
        raise Unreadable(f"{RESULT} is damaged: {reason_of(error, folder / RESULT)}") from None
    if result.status == FAILED:
        raise Unreadable(f"failed: {' '.join(str(result.error).split())[:160]}")
    if result.status != COMPLETED:
        raise Unreadable(f"unfinished: its status is {result.status!r}")
    try:
        return _run(folder, settings, result)
    except ValueError as error:
        raise Unreadable(f"{RESULT} is damaged: {error}") from None


def read_flat_settings(folder: Path) -> dict[str, Any]:
    """Read the settings in config.yaml, by dotted name.

    Raises:
        Unreadable: missing, damaged, or of another program.
    """
    if not (folder / CONFIG).exists():
        raise Unreadable(NO_RUN)
    try:
        settings = read_yaml(folder / CONFIG)
    except (OSError, ValueError) as error:
        raise Unreadable(f"{CONFIG} cannot be read: {reason_of(error, folder / CONFIG)}") from None
    groups = ("model", "tokenizer", "data", "trainer")
    if not isinstance(settings, dict) or not all(isinstance(settings.get(group), dict) for group in groups):
        raise Unreadable(f"{CONFIG} has no settings of a gptexp run")
    if type(settings.get("seed")) is not int:
        raise Unreadable(f"{CONFIG} has no seed")
    scalar = (type(None), bool, int, float, str)
    flat = flatten(completed(settings))
    if flat.get("optimizer.lr") is None:  # keep null as well: it follows the model, unlike an equal number
        flat[EFFECTIVE_LR] = _default_lr(settings["model"])
    return {key: value if isinstance(value, scalar) else str(value) for key, value in flat.items()}


def _default_lr(model: dict[str, Any]) -> float | None:
    """The rate that `optimizer.lr: null` resolves to, or None for an unknown kind of model or unresolved settings."""
    schema = KINDS["model"].get(str(model.get("kind")))
    if schema is None or "${" in str(model):
        return None
    try:
        return float(OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), model)).default_lr)  # type: ignore[union-attr]
    except (OmegaConfBaseException, ValueError, ArithmeticError):
        return None


def _as_computed(settings: dict[str, Any], result: Result) -> dict[str, Any]:
    """The settings with `auto` and null resolved, and with the step at which an extended run was extended.

    bf16 on one machine and float32 on another are two configurations, as are two peak learning rates.
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
    tokens_per_step = _needed("tokens", result.tokens) / _needed("steps", result.steps)
    curve, problem = read_curve(folder, tokens_per_step)
    code, commits = code_versions(folder, result.history or [])
    return replace(
        make_run(folder, settings, result, _seconds(result, curve)),
        curve=curve,
        curve_problem=problem,
        origin=origin(folder / PROVENANCE),
        code=code,
        commits=commits,
        finished=(folder / RESULT).stat().st_mtime,
    )


def _asked(settings: dict[str, Any]) -> dict[str, int | float | str]:
    return asked({name: settings.get(f"trainer.{name}") for name in LENGTHS})


def _max_steps(settings: dict[str, Any], result: Result) -> int | None:
    """Return the recorded length; results of earlier versions have it in their settings only."""
    if result.length is not None:
        return result.length["max_steps"]
    steps = settings.get("trainer.max_steps")
    return result.history[-1]["max_steps"] if result.history else steps if type(steps) is int else None


def make_run(folder: Path, settings: dict[str, Any], result: Result, seconds: float) -> Run:
    """Return a run without what only its folder has: curve, origin and code. ValueError: the result is incomplete."""
    val_tokens, sha = result.val.get("texts", result.val.get("tokens")), result.val.get("text_sha256")
    if not isinstance(sha, str):
        raise ValueError("no text_sha256")
    if type(val_tokens) is not int or not 0 < val_tokens < 2**63:
        raise ValueError(f"the size of its validation text is {val_tokens!r}")
    return Run(
        folder=folder,
        settings=_as_computed(settings, result),
        seed=settings["seed"],
        metrics=_metrics(result.metrics),
        best=_metrics(result.best),
        text_sha256=sha,
        val_tokens=val_tokens,
        steps=_needed("steps", result.steps),
        tokens=_needed("tokens", result.tokens),
        parameters=_needed("parameters", result.parameters),
        seconds=seconds,
        tokens_per_second=float(_needed("tokens_per_second", result.tokens_per_second)),
        bytes_per_token=result.bytes_per_token,
        flops_per_token=result.flops_per_token,
        asked=_asked(settings),
        max_steps=_max_steps(settings, result),
        part_texts={name: str(part.get("text_sha256")) for name, part in (result.mixture or {}).items()},
    )


def _seconds(result: Result, curve: Curve | None) -> float:
    """Training seconds of the whole run; those in result.json count from the last resume."""
    if curve is not None and curve.seconds is not None and not curve.seconds_derived:
        return float(curve.seconds[-1])
    if result.resumed_from:
        return _needed("tokens", result.tokens) / _needed("tokens_per_second", result.tokens_per_second)
    return float(_needed("seconds", result.seconds if result.training_seconds is None else result.training_seconds))


def _needed(name: str, value: Number | None) -> Number:
    if value is None:
        raise ValueError(f"no {name}")
    return value


def _metrics(values: Metrics) -> dict[str, float]:
    """Return the metrics with nan for each value that is not finite."""
    return {name: math.nan if x is None or not abs(x) < LARGEST else float(x) for name, x in values.items()}


def last_sample(folder: Path) -> str:
    """Return the text sample of the last validation, or "" if there is none."""
    try:
        written = samples.read(folder)
    except OSError:
        return ""
    return written[-1][1] if written else ""


def reason_of(error: Exception, path: Path) -> str:
    """Return in one line why a file can't be read."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).removeprefix(f"{path}: ").split())[:160]
