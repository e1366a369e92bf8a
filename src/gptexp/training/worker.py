"""Rank processes: they train with the settings that rank 0, or the process that started all ranks, has composed."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gptexp.compose.composition import config_from_plain
from gptexp.machine import rank_environment, ranks
from gptexp.machine.rank_environment import Rank
from gptexp.training.launch import Composition
from gptexp.training.sharing import from_plain
from gptexp.util.entry_point import entry_point
from gptexp.util.errors import one_line_errors
from gptexp.util.output import outlive_readers
from gptexp.util.quick_imports import without_collection
from gptexp.util.threads import share_cores

T = TypeVar("T")


@entry_point
def main() -> None:
    """Train as the rank given by the environment, with the settings read from standard input."""
    outlive_readers()
    with ranks.exit_without_finalization():
        composition = _read_composition()
        threading.Thread(target=_end_with_parent, daemon=True).start()
        _train(composition)


def lead_or_follow(lead: Callable[[], T], refuse: Callable[[Rank], None] = lambda rank: None) -> T | None:
    """Call `lead` as the only process or as rank 0; as another rank train what rank 0 sends, and return None.

    refuse: called in each of several ranks before they connect; it may end the program.
    """
    share_cores()
    outlive_readers()
    with one_line_errors():
        started = rank_environment.started()
    if started is None:
        return lead()
    with ranks.exit_without_finalization():
        refuse(started)
        if started.rank > 0:
            follow()
            return None
        with one_line_errors():
            ranks.open_store()
        return lead()


def follow() -> None:
    """Receive the composition and the folder from rank 0 and train."""
    with one_line_errors():
        ranks.connect()
        composition: Composition = ranks.receive(ranks.COMPOSITION)
    _train(composition)


def _train(composition: Composition) -> None:
    with one_line_errors():
        with without_collection():
            from gptexp.training.run import train  # torch is imported no earlier than here
        ranks.open_store()  # early, so that the other ranks learn of any failure from here on

        config = config_from_plain(composition["config"])
        sharing = from_plain(composition["sharing"])
        resolution = Path(composition["resolution"]) if composition["resolution"] else None
        folder, steps = Path(composition["folder"]), composition["steps"]
        train(config, folder, steps=steps, resolution=resolution, sharing=sharing)


def _read_composition() -> Composition:
    """Read the first line of standard input, which comes from gptexp's launcher."""
    line = b""
    while not line.endswith(b"\n"):  # unbuffered: `_end_with_parent` reads what follows
        piece = os.read(0, 65536)
        if not piece:
            os._exit(1)
        line += piece
    composition: Composition = json.loads(line)
    return composition


def _end_with_parent() -> None:
    """End this process when the launcher ends, however it is killed: standard input closes then."""
    while os.read(0, 4096):  # unbuffered: a thread waiting in sys.stdin would hold its lock at exit
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
