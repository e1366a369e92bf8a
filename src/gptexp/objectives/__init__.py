"""Objectives: what a model is trained to predict. Each kind is a file with a class named `Implementation`.

To add an objective, add a file here with its schema and a preset in conf/objective/.
"""

from __future__ import annotations

import importlib
from typing import Any

from gptexp.objectives.base import Objective, Score

__all__ = ["Objective", "Score", "implementation"]


def implementation(kind: str) -> type[Objective[Any]]:
    """Return the class for `objective.kind`: gptexp.objectives.<kind>.Implementation."""
    found: type[Objective[Any]] = importlib.import_module(f"{__name__}.{kind}").Implementation
    return found
