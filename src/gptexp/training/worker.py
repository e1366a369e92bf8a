"""A rank that trains what rank 0, or the process that started all ranks, has composed; never started by hand."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gptexp.compose.composition import config_from_plain
from gptexp.machine import rank_environment, ranks
from gptexp.machine.rank_environment import Rank
from gptexp.util.entry_point import entry_point
from gptexp.util.errors import one_line_errors
from gptexp.util.output import outlive_readers
from gptexp.util.threads import share_cores

T = TypeVar("T")


@entry_point
def main() -> None:
    """Train as the rank that the environment says, with the settings that come by standard input."""
    outlive_readers()
    with ranks.exit_without_finalization():
        handed = _handed_over()
        threading.Thread(target=_end_with_parent, daemon=True).start()
        _train(handed)


def lead_or_follow(lead: Callable[[], T], refuse: Callable[[Rank], None] = lambda who: None) -> T | None:
    """Call `lead` as the only process or as rank 0; as another rank train what rank 0 hands over, and return None.

    refuse: called with the rank where several processes train, before they meet; it may end the program.
    """
    share_cores()
    outlive_readers()
    with one_line_errors():
        who = rank_environment.started()
    if who is None:
        return lead()
    with ranks.exit_without_finalization():
        refuse(who)
        if who.rank > 0:
            follow()
            return None
        with one_line_errors():
            ranks.serve()
        return lead()


def follow() -> None:
    """Take the composition and the folder from rank 0, over the store, and train."""
    with one_line_errors():
        ranks.connect()
        handed = ranks.receive(ranks.COMPOSITION)
    _train(handed)


def _train(handed: dict[str, Any]) -> None:
    with one_line_errors():
        from gptexp.training.run import train  # torch is imported no earlier than here

        train(config_from_plain(handed["config"]), Path(handed["folder"]))


def _handed_over() -> dict[str, Any]:
    """The first line of standard input, from gptexp's own launcher; no other process can write there."""
    line = b""
    while not line.endswith(b"\n"):  # unbuffered: the rest is for `_end_with_parent`
        piece = os.read(0, 65536)
        if not piece:
            os._exit(1)
        line += piece
    return json.loads(line)


def _end_with_parent() -> None:
    """Whoever kills the launcher, by whatever signal, leaves no orphan behind: standard input closes then."""
    while os.read(0, 4096):  # unbuffered: a thread that waits in sys.stdin would hold its lock at exit
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
