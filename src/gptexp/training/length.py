"""The length of a run: from the setting that gives it to a number of steps, once, before the first step. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from gptexp.config import Config
from gptexp.config.length import asked
from gptexp.config.rules import LARGEST
from gptexp.runs.history import Segment
from gptexp.util.files import read_json, write_json

Asked = dict[str, int | float | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """The length of a run. asked: the setting that gives it, such as {"max_steps": 580}. max_steps: its steps.

    exhausts: the part of a mixture that ends the run before that setting does; empty if none.
    """

    asked: Asked
    max_steps: int
    exhausts: str = ""

    @property
    def setting(self) -> str:
        """The setting that gives the length, such as trainer.max_steps."""
        return f"trainer.{next(iter(self.asked))}"

    @property
    def text(self) -> str:
        """The setting with its value."""
        value = next(iter(self.asked.values()))
        return f"{self.setting}={value:g}" if isinstance(value, float) else f"{self.setting}={value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a step costs. trainable: parameters that are trained, embeddings included."""

    tokens_per_step: int
    flops_per_token: float
    trainable: int

    @property
    def flops_per_step(self) -> float:
        """FLOPs of the forward and backward passes of a step."""
        return self.tokens_per_step * self.flops_per_token


def resolved(config: Config, steps: int) -> Length:
    """Return the length of a run that has been resolved to so many steps.

    Raises:
        ValueError: too many steps, or a warm-up longer than the run.
    """
    length = Length(asked=config.trainer.length, max_steps=steps)
    if steps > LARGEST:
        raise ValueError(f"{length.text}: is {steps:.1e} steps; give at most {LARGEST:,}")
    if "max_steps" not in length.asked:
        config.schedule.require_warmup(steps, f"the {steps} steps of {length.text}")
    return length


def affordable(config: Config, cost: Cost) -> int:
    """Return the largest number of steps within a budget of steps, tokens or FLOPs, and at least one.

    Raises:
        ValueError: FLOPs of a model that has none.
    """
    trainer = config.trainer
    if trainer.max_steps is not None:
        return trainer.max_steps
    if trainer.max_flops is not None:
        if not cost.flops_per_token:
            raise ValueError(
                f"trainer.max_flops={trainer.max_flops:g}: a model of kind {config.model.kind} has no FLOPs, because "
                "lookups do not count; use trainer.max_tokens"
            )
        tokens = Fraction(trainer.max_flops) / Fraction(cost.flops_per_token)
    elif trainer.tokens_per_parameter is not None:
        tokens = Fraction(trainer.tokens_per_parameter) * cost.trainable
    else:
        assert trainer.max_tokens is not None
        tokens = Fraction(trainer.max_tokens)
    return max(1, int(tokens // cost.tokens_per_step))


def recorded(config: Config, stored: Mapping[str, Any], history: Sequence[Segment] | None) -> int | None:
    """Return the number of steps of a run that is resumed with the same length; None if the length has changed.

    stored: the settings of its checkpoint.
    """
    trainer = stored.get("trainer")
    same = isinstance(trainer, Mapping) and asked(trainer) == config.trainer.length
    return history[-1]["max_steps"] if same and history else None


def write_steps(path: Path, length: Length) -> None:
    """Store the resolution that all seeds of a configuration share."""
    write_json(path, {"asked": length.asked, "max_steps": length.max_steps})


def read_steps(path: Path, budget: Asked) -> int | None:
    """Return the stored resolution; None without one of the same budget."""
    try:
        stored = read_json(path)
    except (OSError, ValueError):
        return None
    steps = stored.get("max_steps")
    return steps if stored.get("asked") == budget and type(steps) is int and 0 < steps <= LARGEST else None
