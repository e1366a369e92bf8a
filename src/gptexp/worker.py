"""A rank that trains what rank 0, or the process that started all ranks, has composed; never started by hand."""

from __future__ import annotations

import json
import os
import threading
from typing import Any

from gptexp.entry import entry_point


@entry_point
def main() -> None:
    """Train as the rank that the environment says, with the settings that come by standard input."""
    from gptexp import ranks
    from gptexp.output import outlive_readers

    outlive_readers()
    with ranks.ending_whole():
        handed = _handed_over()
        threading.Thread(target=_end_with_parent, daemon=True).start()
        _train(handed)


def follow() -> None:
    """Take the composition and the folder from rank 0, over the store, and train."""
    from gptexp import ranks
    from gptexp.cli import one_line_errors

    with one_line_errors():
        ranks.connect()
        handed = ranks.hear(ranks.COMPOSITION)
    _train(handed)


def _train(handed: dict[str, Any]) -> None:
    from pathlib import Path

    from gptexp.cli import one_line_errors
    from gptexp.compose import config_from_plain

    with one_line_errors():
        from gptexp.training import train

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
