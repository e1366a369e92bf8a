"""The length of a run: from what the settings ask for to a number of steps, once, before the first step."""

from __future__ import annotations

from dataclasses import dataclass

from gptexp.config import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """The length of a run. asked: the setting that gives it, such as {"max_steps": 580}. max_steps: its steps."""

    asked: dict[str, int | float | str]
    max_steps: int


def resolve(config: Config, steps: int | None) -> Length:
    """Return the length of a run.

    steps: the number of steps, if it is already resolved.
    """
    asked: dict[str, int | float | str] = {}
    if config.trainer.max_steps is not None:
        asked["max_steps"] = config.trainer.max_steps
    found = config.trainer.max_steps if steps is None else steps
    assert found is not None
    return Length(asked=asked, max_steps=found)
