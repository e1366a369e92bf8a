"""`gptexp verify-resume`: train with and without an interruption and compare the two runs bitwise."""

from __future__ import annotations

import argparse
import hashlib
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gptexp.compose import commandline
from gptexp.compose.composition import compose
from gptexp.compose.overrides import quoted
from gptexp.config import Config
from gptexp.config.length import LENGTHS
from gptexp.config.override_syntax import key_of, quote
from gptexp.runs.layout import BEST, CHECKPOINTS, EVENTS, LAST, METRICS, VERIFY
from gptexp.util.errors import ConfigError, RunError
from gptexp.util.files import display_path, read_rows

TIMED = {"tokens_per_second", "mfu", "seconds"}  # measured times differ between runs
TRACE = "callbacks.plugins.trace"


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Train, compare and print. Exit code 0: bitwise equal; 1: the runs differ, and the first difference is printed."""
    config = _checked(arguments, overrides)
    if config.init_from:  # resolve `latest` before the first training
        others = [override for override in overrides if key_of(quoted(override)) != "init_from"]
        overrides = [*others, f"init_from={quote(config.init_from)}"]
    place = _place(config)
    try:
        comparisons = verify(arguments.steps, arguments.kill_at, overrides, place)
    except RunError:
        shutil.rmtree(place)
        raise
    _show(comparisons)
    difference = next((c for c in comparisons if c.difference), None)
    if difference is None:
        print("bitwise equal")
        if not arguments.keep:
            shutil.rmtree(place)
        return
    print(f"not equal: {difference.what}: {difference.difference}\nboth runs are in {display_path(place)}")
    sys.exit(1)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was compared, how many values, and the first difference."""

    what: str
    compared: int
    difference: str | None


def _checked(options: argparse.Namespace, overrides: list[str]) -> Config:
    if odd := next((o for o in overrides if o.startswith("-") or "=" not in o), None):
        raise ConfigError(f"{odd}: neither an option (see --help) nor key=value")
    if not 1 <= options.kill_at < options.steps:
        raise ConfigError(f"--kill-at={options.kill_at}: must be from 1 to below --steps={options.steps}")
    given = {key_of(quoted(override)) for override in overrides}
    if reserved := given & {"resume", "hydra.run.dir", *(f"trainer.{name}" for name in LENGTHS)}:
        raise ConfigError(f"{reserved.pop()}: is set by this command; leave it out (--steps sets the length)")
    config = compose([*overrides, *_settings(options.steps, options.kill_at)])
    commandline.check(config)
    return config


def _place(config: Config) -> Path:
    logs = Path(config.paths.logs) / VERIFY
    logs.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="resume-", dir=logs))


def _settings(steps: int, kill_at: int) -> list[str]:
    """Log every step, and save some steps before the kill, so that steps are repeated."""
    every = max(1, (kill_at - 1) // 2)
    return [f"trainer.max_steps={steps}", "trainer.log_every_steps=1", f"callbacks.checkpoint.every_steps={every}"]


def verify(steps: int, kill_at: int, overrides: list[str], place: Path) -> list[Comparison]:
    """Run the three trainings in `place` and compare.

    Raises:
        RunError: a training failed unexpectedly.
    """
    settings = [*overrides, *_settings(steps, kill_at)]
    whole, killed = place / "whole", place / "killed"
    trace = f"+{TRACE}={{_target_: gptexp.training.callbacks.trace.Trace, kill_at: {{}}}}"
    _train([*settings, trace.replace("{}", "null"), _in(whole)], "without interruption")
    _train([*settings, trace.replace("{}", str(kill_at)), _in(killed)], f"until SIGKILL in step {kill_at}", dies=True)
    if not (killed / CHECKPOINTS / LAST).exists():
        raise RunError(f"no checkpoint was saved before step {kill_at}; use a larger --kill-at")
    _train([*settings, trace.replace("{}", "null"), f"resume={quote(str(killed))}"], "resumed")
    return [
        _first("batches, losses and gradient norms", _traced(whole, steps), _traced(killed, steps)),
        _first("logged values", _logged(whole), _logged(killed)),
        _first("values in TensorBoard", _curves(whole), _curves(killed)),
        *_checkpoints(whole, killed),
    ]


def _in(folder: Path) -> str:
    return f"hydra.run.dir={quote(str(folder))}"


def _train(overrides: list[str], what: str, *, dies: bool = False) -> None:
    print(f"training {what} …", file=sys.stderr)
    command = [sys.executable, "-m", "gptexp.train", *overrides]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    killed = done.returncode == -9 or "SIGKILL" in done.stderr
    if (killed if dies else done.returncode == 0) is False:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        reason = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[-1])
        raise RunError(f"training {what}: {reason}")


def _first(what: str, expected: dict[Any, Any], found: dict[Any, Any]) -> Comparison:
    """Compare two tables; the result has the first key with different values."""
    for key in sorted(expected.keys() | found.keys()):
        a, b = expected.get(key, "nothing"), found.get(key, "nothing")
        if a != b:
            return Comparison(what, len(expected), f"{_named(key)}: {a} without interruption, {b} resumed")
    return Comparison(what, len(expected), None)


def _named(key: Any) -> str:
    return " ".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _traced(folder: Path, steps: int) -> dict[Any, Any]:
    """Return the traced values of each forward pass; several if a repeated step gave other values."""
    from gptexp.training.callbacks.trace import read_trace  # imports torch

    return {
        (f"step {step:06d}", f"rank {rank}", f"micro-batch {micro}"): " | ".join(sorted(" ".join(row) for row in rows))
        for (rank, step, micro), rows in read_trace(folder).items()
        if step <= steps
    }


def _logged(folder: Path) -> dict[Any, Any]:
    """Return metrics.csv by (row, column), which reveals duplicate and missing steps."""
    rows = read_rows(folder / METRICS)
    return {
        (f"row {i:06d}", name): value for i, row in enumerate(rows) for name, value in row.items() if name not in TIMED
    }


def _curves(folder: Path) -> dict[Any, Any]:
    """Return {(tag, position): (step, value)} as TensorBoard's server reads its files; empty without files."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    if not list(folder.glob(f"{EVENTS}*")):
        return {}
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of repeated steps
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return {
        (tag, f"point {i:06d}"): (event.step, make_ndarray(event.tensor_proto).item())
        for tag in events.PluginTagToContent("scalars")
        if tag not in TIMED
        for i, event in enumerate(events.Tensors(tag))
    }


def _checkpoints(whole: Path, killed: Path) -> Iterator[Comparison]:
    from gptexp.runs.opening import load

    for name in (LAST, BEST):
        a, b = (load(folder / CHECKPOINTS / name) for folder in (whole, killed))
        yield _first(f"weights, {name}", _bits(a.model), _bits(b.model))
        yield _first(f"optimizer, {name}", _bits(a.optimizer), _bits(b.optimizer))
        scores = [{"step": c.step, **{k: str(v) for k, v in c.metrics.items() if k not in TIMED}} for c in (a, b)]
        yield _first(f"step and scores, {name}", *scores)


def _bits(tensors: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Return a hash of the bytes of each tensor: two NaNs are equal, 0.0 and -0.0 are not."""
    import torch

    found: dict[str, str] = {}
    for name, value in tensors.items():
        if isinstance(value, dict):
            found |= _bits(value, f"{prefix}{name} ")
        elif isinstance(value, torch.Tensor):
            raw = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            found[prefix + name] = f"{tuple(value.shape)} {value.dtype} {hashlib.sha256(raw).hexdigest()[:16]}"
        else:
            found[prefix + name] = repr(value)
    return found


def _show(comparisons: list[Comparison]) -> None:
    table = Table("", "compared", "")
    table.columns[1].justify = "right"
    for c in comparisons:
        table.add_row(c.what, f"{c.compared:,}", "differ" if c.difference else "equal" if c.compared else "none")
    Console(highlight=False).print(table)
