"""Objectives: what a model is trained to predict."""

from __future__ import annotations

from typing import Any

from gptexp.config import kinds
from gptexp.objectives.base import Objective, Score

__all__ = ["Objective", "Score", "implementation"]


def implementation(kind: str) -> type[Objective[Any]]:
    """Return the class for `objective.kind`."""
    found: type[Objective[Any]] = kinds.implementation("objective", kind)
    return found
