"""Whether a process works in a folder: its lock is looked at without changing the file (no torch)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PATIENCE = 0.5  # seconds that `writing.locked` waits for a look at the lock to end, which takes microseconds


def is_locked(path: Path) -> bool:
    """Return whether a process holds a lock of `writing.locked`; False without the file, or where locks don't work.

    A lock ends with its process, however that is killed.
    """
    flags = os.O_RDWR if sys.platform == "win32" else os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return False
    try:
        return _is_taken(descriptor)
    finally:
        os.close(descriptor)  # on Unix this ends the shared lock


if sys.platform == "win32":
    import msvcrt

    def _is_taken(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return True
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        return False
else:
    import fcntl

    def _is_taken(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # the file system has no locks
            return False
        return False
