"""Reads run folders: settings, final metrics, costs and validation curve, or the reason why a run is excluded."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gptexp.config import KINDS
from gptexp.config.fingerprint import completed, flatten
from gptexp.report.curves import Curve, read_curve
from gptexp.report.origin import code_versions, natural, origin
from gptexp.runs import history, samples
from gptexp.runs.layout import CONFIG, PROVENANCE, RESULT
from gptexp.util.errors import RunError
from gptexp.util.files import read_json, read_yaml

NO_RUN = f"no run in it or below it (a run's folder has a {CONFIG})"
EFFECTIVE_LR = "optimizer.effective_lr"  # the rate that `optimizer.lr: null` resolved to
LARGEST = 1e100  # a larger metric counts as diverged; its square would overflow


class Unreadable(ValueError):
    """A run folder cannot be included; the message completes "left out: FOLDER: …"."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One finished run.

    metrics, best: by name (val/bpb …), of the last and of the best step; nan if not finite.
    val_tokens: scored in validation, or texts if the objective scores texts.
    flops_per_token: as recorded, or None. bytes_per_token: of the training text, or None.
    seconds: of training, without validation. finished: when result.json was written (seconds since 1970).
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
    curve: Curve | None = None
    curve_problem: str = ""
    origin: dict[str, str] = field(default_factory=dict)
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
    result = _json(folder / RESULT)
    if result.get("status") == "failed":
        raise Unreadable(f"failed: {' '.join(str(result.get('error')).split())[:160]}")
    if result.get("status") != "completed":
        raise Unreadable(f"unfinished: its status is {result.get('status')!r}")
    try:
        return _run(folder, settings, result)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise Unreadable(f"{RESULT} is damaged: {what}") from None


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
        raise Unreadable(f"{CONFIG} cannot be read: {_first_line(error, folder / CONFIG)}") from None
    groups = ("model", "tokenizer", "data", "trainer")
    if not isinstance(settings, dict) or not all(isinstance(settings.get(group), dict) for group in groups):
        raise Unreadable(f"{CONFIG} has no settings of a gptexp run")
    if type(settings.get("seed")) is not int:
        raise Unreadable(f"{CONFIG} has no seed")
    scalar = (type(None), bool, int, float, str)
    flat = flatten(completed(settings))
    if flat.get("optimizer.lr") is None:  # keep null as well: it follows the model, unlike an equal number
        flat[EFFECTIVE_LR] = _natural_lr(settings["model"])
    return {key: value if isinstance(value, scalar) else str(value) for key, value in flat.items()}


def _natural_lr(model: dict[str, Any]) -> float | None:
    """The rate that `optimizer.lr: null` resolves to, or None for an unknown kind of model or unresolved settings."""
    schema = KINDS["model"].get(str(model.get("kind")))
    if schema is None or "${" in str(model):
        return None
    try:
        return float(OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), model)).natural_lr)  # type: ignore[union-attr]
    except (OmegaConfBaseException, ValueError, ArithmeticError):
        return None


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except FileNotFoundError:
        raise Unreadable(f"unfinished: no {path.name}") from None
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path.name} is damaged: {_first_line(error, path)}") from None


def _as_computed(settings: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """The settings with `auto` and null resolved, and with the step at which an extended run was extended.

    bf16 on one machine and float32 on another are two configurations, as are two peak learning rates.
    """
    found = dict(settings)
    if isinstance(chosen := result.get("precision"), str):
        found["trainer.precision"] = chosen
    if EFFECTIVE_LR in settings and result.get("peak_lr") is not None:
        found[EFFECTIVE_LR] = _number(result, "peak_lr")
    if extended := history.extension(_history(result)):
        found["schedule.extended"] = extended
    return found


def _history(result: dict[str, Any]) -> list[history.Segment]:
    """The segments of the run's history; older results have none."""
    return history.checked(result["history"]) if result.get("history") is not None else []


def _run(folder: Path, settings: dict[str, Any], result: dict[str, Any]) -> Run:
    steps, tokens = _count(result, "steps"), _count(result, "tokens")
    rate = _number(result, "tokens_per_second")
    curve, problem = read_curve(folder, tokens_per_step=tokens / steps)
    sha = result["val"]["text_sha256"]
    if not isinstance(sha, str):
        raise TypeError("text_sha256 is not a text")
    code, commits = code_versions(folder, _history(result))
    return Run(
        folder=folder,
        settings=_as_computed(settings, result),
        seed=settings["seed"],
        metrics=_metrics(result["metrics"]),
        best=_metrics(result.get("best") or {}),
        text_sha256=sha,
        val_tokens=_count(result["val"], "texts" if "texts" in result["val"] else "tokens"),
        steps=steps,
        tokens=tokens,
        parameters=_count(result, "parameters"),
        seconds=_seconds(result, curve, tokens, rate),
        tokens_per_second=rate,
        bytes_per_token=_optional(result, "bytes_per_token"),
        flops_per_token=_optional(result, "flops_per_token", zero=True),  # a bigram model has none
        curve=curve,
        curve_problem=problem,
        origin=origin(folder / PROVENANCE),
        code=code,
        commits=commits,
        finished=(folder / RESULT).stat().st_mtime,
    )


def _seconds(result: dict[str, Any], curve: Curve | None, tokens: int, rate: float) -> float:
    """Training seconds of the whole run; those in result.json count from the last resume."""
    if curve is not None and curve.seconds is not None and not curve.seconds_derived:
        return float(curve.seconds[-1])
    if result.get("resumed_from"):
        return tokens / rate
    return _number(result, "training_seconds" if "training_seconds" in result else "seconds", zero=True)


def _count(values: Mapping[str, Any], name: str) -> int:
    value = values[name]
    if type(value) is not int or not (0 < value < 2**63):
        raise ValueError(f"{name} is {value!r}")
    return value


def _number(values: Mapping[str, Any], name: str, *, zero: bool = False) -> float:
    """A finite number above 0, or from 0 if `zero`."""
    value = values[name]
    if type(value) not in (int, float) or not (0 < value < math.inf or (zero and value == 0)):
        raise ValueError(f"{name} is {value!r}")
    return float(value)


def _optional(values: Mapping[str, Any], name: str, *, zero: bool = False) -> float | None:
    """A number, or None if an older run did not record it."""
    return None if values.get(name) is None else _number(values, name, zero=zero)


def _metrics(values: Any) -> dict[str, float]:
    """Metrics by name; null, which stands for a number that is not finite, becomes nan."""
    if not isinstance(values, dict):
        raise TypeError("metrics are not an object")
    known = {str(name): math.nan if value is None else value for name, value in values.items()}
    if not all(type(value) in (int, float) for value in known.values()):
        raise TypeError("a metric is not a number")
    return {name: float(value) if abs(value) < LARGEST else math.nan for name, value in known.items()}


def last_sample(folder: Path) -> str:
    """Return the text sample of the last validation, or "" if there is none."""
    try:
        written = samples.read(folder)
    except OSError:
        return ""
    return written[-1][1] if written else ""


def _first_line(error: Exception, path: Path) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).removeprefix(f"{path}: ").split())[:160]
