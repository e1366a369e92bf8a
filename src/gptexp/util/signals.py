"""Signals that end a run after its step."""

from __future__ import annotations

import signal
from collections.abc import Callable

# Signals that end a run after the current step, with a checkpoint. A closed terminal sends SIGHUP; Windows lacks it.
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def is_ignored(signum: int) -> bool:
    """Return whether a signal stays ignored, as SIGHUP under `nohup`."""
    return signum == getattr(signal, "SIGHUP", None) and signal.getsignal(signum) is signal.SIG_IGN


class Interrupted(Exception):
    """A signal ended the run after a step, if possible with a checkpoint.

    place: returns the end of the message. It is called late, when all files have been written.
    """

    def __init__(self, signum: int, place: Callable[[], str] = str) -> None:
        super().__init__(signum, place)
        self.signum, self._place = signum, place

    def __str__(self) -> str:
        return f"interrupted by {signal.Signals(self.signum).name}{self._place()}"
