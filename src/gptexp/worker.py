"""A rank that trains what rank 0, or the process that started all ranks, has composed; never started by hand."""

from __future__ import annotations

import os
import sys
import threading


def main() -> None:
    """Train as the rank that the environment says, with the settings that are handed over."""
    from gptexp import ranks

    if os.environ.get(PARENT):
        threading.Thread(target=_end_with_parent, daemon=True).start()
    with ranks.ending_whole():
        follow()


def follow() -> None:
    """Take the composition and the folder from the store, and train."""
    from pathlib import Path

    from gptexp import ranks
    from gptexp.cli import USER_ERROR, one_line_errors
    from gptexp.compose import config_from_plain

    with one_line_errors():
        handed = ranks.hear(ranks.COMPOSITION)
        if handed is None:  # rank 0 has said why
            sys.exit(USER_ERROR)
        from gptexp.training import train

        train(config_from_plain(handed["config"]), Path(handed["folder"]))


PARENT = "GPTEXP_PARENT"  # set by gptexp's own launcher: standard input closes when it dies


def _end_with_parent() -> None:
    """Whoever kills the launcher, by whatever signal, leaves no orphan behind."""
    while os.read(0, 4096):  # unbuffered: a thread that waits in sys.stdin would hold its lock at exit
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
