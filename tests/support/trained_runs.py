"""Texts and runs that the tests of evaluation share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from gptexp.objectives.loading import load_model
from gptexp.runs.opening import load

TEXT = "“Who took the seventh loaf?” she asks.\nA grey cat sleeps — the baker counts\tnine crows.  "
PLAIN = "A grey cat counts her loaves.\nThe baker sleeps on the warm oven,  as cats do!"
Evaluate = Callable[..., dict[str, Any]]


def opened(run: str) -> tuple[nn.Module, Any]:
    return load_model(load(Path(run) / "checkpoints/last.ckpt"), run)
