"""Signals that end a run after its step."""

from __future__ import annotations

import signal
from collections.abc import Callable

# What ends a run after its step, with a checkpoint; SIGHUP comes when a terminal closes, and Windows has none.
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def is_ignored(signum: int) -> bool:
    """Whether a signal stays ignored: SIGHUP under `nohup`."""
    return signum == getattr(signal, "SIGHUP", None) and signal.getsignal(signum) is signal.SIG_IGN


class Interrupted(Exception):
    """A signal ended the run after a step; where it could, it saved before."""

    def __init__(self, signum: int, place: Callable[[], str] = str) -> None:
        super().__init__(signum, place)
        self.signum, self._place = signum, place  # called late, when all that the run writes has been written

    def __str__(self) -> str:
        return f"interrupted by {signal.Signals(self.signum).name}{self._place()}"
