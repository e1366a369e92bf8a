"""States of a run after its first steps, stored so that other jobs of a sweep continue from them.

A stored prefix is a folder below PREFIXES, named by a hash of settings and learning rates. It holds a checkpoint, the
best checkpoint of each validation interval, and the provenance of its steps. A job accepts a file only by the mark
inside it, which also hashes code, versions, data, precision, device and layout.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gptexp.config import Config
from gptexp.config.conversion import to_plain
from gptexp.config.trajectory import trajectory
from gptexp.machine import hardware
from gptexp.objectives import Objective
from gptexp.runs.checkpoint import Checkpoint
from gptexp.runs.layout import CHECKPOINTS, LAST, PREFIX, best_every
from gptexp.runs.opening import load
from gptexp.runs.provenance import code_version, provenance_files, read_provenance, save_provenance
from gptexp.training.sharing import Sharing
from gptexp.util.files import atomic_folder, link


class Logged(NamedTuple):
    """What a step logs. norm: of the gradient, nan if there is none. seconds: of training until then."""

    loss: float
    norm: float
    seconds: float


class Scored(NamedTuple):
    """What a validation gives. sums: of the score. text: the sample."""

    seconds: float
    sums: list[float]
    text: str | None


@dataclass
class Curve:
    """What a run has logged and scored until now, by step, including the steps at which only other jobs do so."""

    train: dict[int, Logged] = field(default_factory=dict)
    val: dict[int, Scored] = field(default_factory=dict)

    def as_plain(self) -> dict[str, Any]:
        train = [[step, *row] for step, row in self.train.items()]
        val = [[step, row.seconds, *row.sums] for step, row in self.val.items()]
        texts = [row.text for row in self.val.values()]
        return {"train": _table(train), "val": _table(val), "texts": texts}

    @classmethod
    def from_plain(cls, stored: Mapping[str, Any]) -> Curve:
        """Return what `as_plain` made. Errors of any kind: the content is something else."""
        train = {int(step): Logged(*row) for step, *row in stored["train"].tolist()}
        rows = zip(stored["val"].tolist(), stored["texts"], strict=True)
        return cls(train, {int(step): Scored(seconds, sums, text) for (step, seconds, *sums), text in rows})


def _table(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64) if rows else torch.zeros(0, 4, dtype=torch.float64)


class Prefixes:
    """The stored prefixes on the path of one job.

    facts: everything that determines the steps besides settings and learning rates. initial: hash of the weights that
    init_from loaded; None without it.
    """

    def __init__(
        self, sharing: Sharing, config: Config, max_steps: int, facts: Mapping[str, Any], initial: str | None
    ) -> None:
        path = trajectory(to_plain(config), max_steps)
        assert path is not None
        self.sharing, self.path = sharing, replace(path, base=sharing.base)
        self.initial = initial
        self._facts = json.dumps({**facts, "initial": initial}, sort_keys=True)

    def mark(self, step: int) -> str:
        """Return the hash of everything that determines the state after a step."""
        return hashlib.sha256(f"{self.path.key(step)} {step} {self._facts}".encode()).hexdigest()

    def place(self, step: int) -> Path:
        """Return the folder of the prefix of so many steps."""
        return Path(self.sharing.folder) / self.path.key(step)

    def is_of(self, found: Checkpoint, step: int) -> bool:
        """Return whether a checkpoint has the state that this job has after a step."""
        return found.step == step and found.shared is not None and found.shared.get("mark") == self.mark(step)

    def open(self, path: Path, step: int) -> Checkpoint:
        """Open a stored file.

        Raises:
            ValueError: it is damaged, or of another prefix.
            OSError: it is missing.
        """
        found = load(path)
        if not self.is_of(found, step):
            raise ValueError(f"{path.name} is of other settings, code, data or another kind of machine")
        return found

    def store(self, run: Path, step: int) -> None:
        """Store the newest checkpoint of a run as the prefix of so many steps, unless it is stored already."""
        place, made = self.place(step), run / CHECKPOINTS
        if place.exists():
            with suppress(ValueError, OSError):
                self.open(place / PREFIX, step)
                return
            shutil.rmtree(place)
        with atomic_folder(place) as temporary:
            link(made / LAST, temporary / PREFIX)
            for best in made.glob(best_every("*")):
                link(best, temporary / best.name)
            for path in provenance_files(run):
                found = read_provenance(path)
                found = replace(found, computed_by=found.computed_by or self.sharing.job)
                save_provenance(temporary / path.name, found)


def find_prefixes(
    sharing: Sharing, config: Config, max_steps: int, source: Checkpoint | None, facts: Mapping[str, Any]
) -> Prefixes | None:
    """Return the stored prefixes of a job; None if a checkpoint does not contain its whole state.

    facts: precision, layout and other facts that determine the results. source: the checkpoint it starts from.
    """
    if facts["precision"] == "16-mixed":  # the scale of the gradients is not stored
        return None
    initial = None
    if source is not None and config.init_from is not None:
        initial = (source.shared or {}).get("initial") if config.resume else _digest(source)
    machine = hardware.describe(hardware.accelerator_of(config))
    kind = {name: machine.get(name) for name in ("device", "cpu", "torch_threads", "gpus", "cuda")}
    code = code_version(config)
    here = {"code": code.code_sha256, "versions": code.versions, "machine": kind}
    return Prefixes(sharing, config, max_steps, {**facts, **here}, initial)


def _digest(source: Checkpoint) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(source.model.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def curve_until(source: Checkpoint | None, prefixes: Prefixes) -> Curve | None:
    """Return what a run has recorded until its checkpoint; None if that is unknown, or its steps had other code."""
    if source is None:
        return Curve()
    if not prefixes.is_of(source, source.step):
        return None
    with suppress(ValueError, LookupError, TypeError, AttributeError):
        return Curve.from_plain(source.shared or {})
    return None


def best_step(curve: Curve, every: int, objective: Objective[Any], best_by: str) -> int | None:
    """Return the step with the best score, of validations every so many steps."""
    best, found = math.inf, None
    for step, row in sorted(curve.val.items()):
        value = objective.score(row.sums).metrics()[best_by]
        if step % every == 0 and (found is None or value < best):
            best, found = value, step
    return found
