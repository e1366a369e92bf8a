"""A process that trains a run again up to a step and records the outputs of its modules: for `gptexp diverge`.

It is a process of its own, because the two runs may have been made by two versions of the code.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from gptexp.util.errors import one_line_errors
from gptexp.util.files import read_json

OUTPUTS = "gptexp.training.callbacks.outputs.Outputs"
ALONE = {"compile": False, "devices": 1, "strategy": "auto", "digests": False, "recompute": "none"}


def start(request: dict[str, Any], path: Path) -> list[str]:
    """Write the arguments of `replay` to a file, and return the command that reads it."""
    path.write_text(json.dumps(request, default=str), encoding="utf-8")
    return [sys.executable, "-m", __name__, str(path)]


def replay(
    settings: dict[str, Any],
    *,
    of: str,
    place: str,
    folder: str,
    steps: tuple[int, int],
    max_steps: int | None,
    precision: str | None,
    device: str,
    resume: str | None,
    trust: bool,
) -> None:
    """Train in one process without compilation, record the first to the last of `steps`, and stop.

    of: name of the run. place: folder of the cache. resume: a checkpoint to start from.
    """
    from gptexp.studies.again import config_for
    from gptexp.training.callbacks.outputs import Enough
    from gptexp.training.experiment import run_experiment

    trainer = ALONE | ({"precision": precision} if precision else {})
    config = config_for(settings, Path(place), of=of, trust=trust, device=device, **trainer)
    config.resume = resume
    config.callbacks.plugins["outputs"] = {"_target_": OUTPUTS, "first": steps[0], "last": steps[1]}
    try:
        run_experiment(config, Path(folder), steps=max_steps)
    except Enough:
        return


if __name__ == "__main__":
    with one_line_errors():
        replay(**read_json(Path(sys.argv[1])))
