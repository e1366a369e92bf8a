"""Rank processes: they train with the settings that rank 0, or the process that started all ranks, has composed."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from gptexp.compose.composition import config_from_plain
from gptexp.config import Config
from gptexp.config.conversion import to_plain
from gptexp.machine import rank_environment, ranks
from gptexp.machine.rank_environment import Rank
from gptexp.training.sharing import Sharing, from_plain
from gptexp.util.entry_point import entry_point
from gptexp.util.errors import one_line_errors
from gptexp.util.output import outlive_readers
from gptexp.util.threads import share_cores

T = TypeVar("T")


class Composition(TypedDict):
    """What a rank needs to train, as plain data. sharing: `Sharing.as_plain`, or None."""

    config: dict[str, Any]
    folder: str
    sharing: dict[str, Any] | None


def composition(config: Config, folder: Path, sharing: Sharing | None) -> Composition:
    """Return what the ranks of a run need."""
    plain = None if sharing is None else sharing.as_plain()
    return {"config": to_plain(config), "folder": str(folder.resolve()), "sharing": plain}


@entry_point
def main() -> None:
    """Train as the rank given by the environment, with the settings read from standard input."""
    outlive_readers()
    with ranks.exit_without_finalization():
        received = _read_composition()
        threading.Thread(target=_end_with_parent, daemon=True).start()
        _train(received)


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
            ranks.serve()
        return lead()


def follow() -> None:
    """Receive the composition and the folder from rank 0 and train."""
    with one_line_errors():
        ranks.connect()
        received: Composition = ranks.receive(ranks.COMPOSITION)
    _train(received)


def _train(received: Composition) -> None:
    with one_line_errors():
        from gptexp.training.run import train  # torch is imported no earlier than here

        config = config_from_plain(received["config"])
        train(config, Path(received["folder"]), from_plain(received["sharing"]))


def _read_composition() -> Composition:
    """Read the first line of standard input, which comes from gptexp's launcher."""
    line = b""
    while not line.endswith(b"\n"):  # unbuffered: `_end_with_parent` reads what follows
        piece = os.read(0, 65536)
        if not piece:
            os._exit(1)
        line += piece
    received: Composition = json.loads(line)
    return received


def _end_with_parent() -> None:
    """End this process when the launcher ends, however it is killed: standard input closes then."""
    while os.read(0, 4096):  # unbuffered: a thread waiting in sys.stdin would hold its lock at exit
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
