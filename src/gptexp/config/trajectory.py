"""What determines the weights of a run after each step, as far as its settings tell. No torch.

Two runs with the same base compute the same steps until their learning rates differ. Schedule and length matter only
through the rates, so a WSD or constant schedule shares its first steps with a longer one (Hägele et al. 2024,
arXiv 2405.18392).
"""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gptexp.config.conversion import from_plain
from gptexp.config.fingerprint import PLUGINS, flatten, settings_that_matter
from gptexp.config.length import LENGTHS
from gptexp.config.plugins import EARLY_STOPPING
from gptexp.config.schedule import lr_multiplier

# Settings that do not identify an experiment, but change results in the last digits, or the text samples.
ALSO = (
    "seed",
    "data.micro_batch_size",
    *(f"trainer.{name}" for name in ("accelerator", "devices", "num_nodes", "strategy", "compile", "recompute")),
    *(f"callbacks.samples.{name}" for name in ("tokens", "prompt", "temperature", "top_k")),
)
# Settings that act through the learning rates, or only choose the steps that are scored.
OWN_RATES = ("muon_lr", "embedding_lr", "head_lr", "scalar_lr")  # of some parameters; null: lr
BY_RATES = (
    "schedule.",
    "optimizer.lr",
    *(f"optimizer.{name}" for name in OWN_RATES),
    *(f"trainer.{name}" for name in LENGTHS),
)
SCORED = ("trainer.val_every_steps", PLUGINS)
# Settings that record what the steps of a run contain, which other runs do not record.
MEASURES = ("trainer.digests", "trainer.log_norms", "callbacks.activations", "callbacks.attention_entropy")


@dataclass(frozen=True)
class Trajectory:
    """The settings of a run that determine its steps, and the learning rates of each step.

    base: hash of the settings. rates: the exact rates as bytes, `width` per step.
    """

    base: str
    rates: bytes
    width: int

    @property
    def steps(self) -> int:
        return len(self.rates) // self.width

    def key(self, step: int) -> str:
        """Return the hash of the settings and of the learning rates of the first `step` steps."""
        return hashlib.sha256(self.base.encode() + self.rates[: step * self.width]).hexdigest()[:32]

    def common(self, other: Trajectory) -> int:
        """Return the number of first steps that are equal in both runs."""
        first = slice(self.width)  # most jobs of a sweep of learning rates differ here
        if (self.base, self.width, self.rates[first]) != (other.base, other.width, other.rates[first]):
            return 0
        shorter, size = min(self.steps, other.steps), self.width

        def part(steps: int) -> bool:
            return self.rates[: steps * size] != other.rates[: steps * size]

        return bisect_left(range(shorter + 1), True, key=part) - 1


def trajectory(settings: Mapping[str, Any], steps: int) -> Trajectory | None:
    """Return the trajectory of a run of `steps` steps; None if its record can't be rebuilt from another run's.

    That is so with a length in time, plug-ins other than early stopping, and the settings in MEASURES.
    """
    flat = flatten(settings)
    plugins = {key: value for key, value in flat.items() if key.startswith((PLUGINS, "logger.plugins."))}
    others = any(key.endswith("._target_") and value != EARLY_STOPPING for key, value in plugins.items())
    if others or flat.get("trainer.max_time") is not None or any(flat.get(name) for name in MEASURES):
        return None
    if flat.get("data.exhausted") == "stop":  # the text may end the run before its length does
        return None
    kept = {
        key: value
        for key, value in settings_that_matter(settings, also=ALSO).items()
        if not key.startswith((*BY_RATES, *SCORED))
    }
    base = hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()
    peaks = _peaks(settings)
    multipliers = _multipliers(json.dumps(settings["schedule"]), steps)
    rates = array("d", [peak * multiplier for multiplier in multipliers for peak in peaks])
    return Trajectory(base, rates.tobytes(), len(peaks) * rates.itemsize)


@lru_cache(maxsize=64)  # the jobs of a sweep have few schedules
def _multipliers(schedule: str, steps: int) -> array[float]:
    config = from_plain("schedule", json.loads(schedule))
    return array("d", [lr_multiplier(config, steps, step) for step in range(steps)])


def _peaks(settings: Mapping[str, Any]) -> list[float]:
    """Return the peak learning rates of the optimizer's groups."""
    optimizer = settings["optimizer"]
    lr = from_plain("model", settings["model"]).default_lr if optimizer["lr"] is None else optimizer["lr"]
    return [float(lr), *(float(optimizer[name] or lr) for name in OWN_RATES if name in optimizer)]
