"""result.json: what a run came to."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Any

from gptexp.runs.layout import (
    CHECKPOINTS,
    NAMES,
    RESULT,
)
from gptexp.util.files import display_path, read_json
from gptexp.util.signals import Interrupted


def read_result(folder: Path) -> dict[str, Any]:
    """What result.json says; {} where there is none that can be read."""
    try:
        return read_json(folder / RESULT)
    except (OSError, ValueError):
        return {}


def is_finished(folder: Path) -> bool:
    """Whether a run has come to its end."""
    return read_result(folder).get("status") == "completed"


def interrupted(signum: int, folder: Path) -> Interrupted:
    """The exception for a run that a signal ended, with how to continue it."""
    return Interrupted(signum, partial(_where_it_stopped, folder))


def _where_it_stopped(folder: Path) -> str:
    if not (folder / CHECKPOINTS / NAMES[0]).exists():
        return " before the first checkpoint"
    step = read_result(folder).get("steps")
    place = f" after step {step}" if step else ""
    return f"{place}; go on with resume={shlex.quote(display_path(folder))}"
