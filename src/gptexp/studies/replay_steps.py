"""A process that trains a run again up to a step and records the outputs of its modules: for `gptexp diverge`.

It is a process of its own, because the two runs may have been made by two versions of the code.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, TypedDict

OUTPUTS = "gptexp.training.callbacks.outputs.Outputs"


class Request(TypedDict):
    """settings: of the run `name`. place: folder of both replays, with their cache. folder: of this one. first, last:
    steps to record. resume: a checkpoint to start from."""

    settings: dict[str, Any]
    name: str
    place: str
    folder: str
    first: int
    last: int
    max_steps: int | None
    precision: str | None
    device: str
    resume: str | None
    trust: bool


def main(path: str) -> None:
    """Train as the request in a file says."""
    from gptexp.util.errors import one_line_errors

    with one_line_errors():
        replay(json.loads(Path(path).read_text(encoding="utf-8")))


def replay(request: Request) -> None:
    """Train in one process without compilation, and end after the last recorded step."""
    from gptexp.studies.again import config_for
    from gptexp.training.callbacks.outputs import Enough
    from gptexp.training.experiment import run_experiment

    settings = {"compile": False, "devices": 1, "strategy": "auto", "digests": False}
    if request["precision"] is not None:
        settings["precision"] = request["precision"]
    config = config_for(
        request["settings"],
        Path(request["place"]),
        of=request["name"],
        trust=request["trust"],
        device=request["device"],
        **settings,
    )
    config.resume = request["resume"]
    config.callbacks.plugins["outputs"] = {"_target_": OUTPUTS, "first": request["first"], "last": request["last"]}
    try:
        run_experiment(config, Path(request["folder"]), steps=request["max_steps"])
    except Enough:
        return


if __name__ == "__main__":
    main(sys.argv[1])
