"""One rank as a child process of its supervisor: its output, its end, and whether it is stopped."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

KEPT_LINES = 400
NOTICE = 10.0  # seconds until a stopped rank is reported, and until withheld lines are printed
_FINAL = re.compile(r"error: |interrupted|(\[rank\d+\]: ?)?Traceback ")  # the first of a rank's last lines


def write(lines: list[str]) -> None:
    """Write to standard error. If it is closed, the output of the ranks is still read."""
    with suppress(OSError, ValueError):
        sys.stderr.writelines(lines)
        sys.stderr.flush()


@dataclass
class RankProcess:
    """One rank's process. Its output is printed at once; an error is withheld, so that it is reported only once.

    withheld: lines since one that looked like an error. died: time of its end. stopped: time since which it has been
    stopped; 0 while it runs. killed: the supervisor killed it. overdue: the reason for killing it.
    """

    rank: int
    process: subprocess.Popen[str]
    withheld: list[str] = field(default_factory=list)
    last: str = ""
    died: float = 0.0
    stopped: float = 0.0
    killed: bool = False
    overdue: str = ""

    def __post_init__(self) -> None:
        self._last_output = 0.0
        self._reported = False
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._lock:
                self._take(line)
        self.process.wait()
        self.died = time.monotonic()
        if self.process.returncode == 0:
            with self._lock:
                self._release()

    def _take(self, line: str) -> None:
        self.last, self._last_output = line.strip() or self.last, time.monotonic()
        if self.withheld or _FINAL.match(line):
            self.withheld.append(line)
            del self.withheld[:-KEPT_LINES]
        elif self.rank == 0:
            write([line])

    def _release(self) -> None:
        """Print the withheld lines, because the rank continued after them."""
        if self.rank == 0:
            write(self.withheld)
        self.withheld.clear()

    def watch(self) -> None:
        """Print withheld lines if the rank continues, and report once if it is stopped. Called repeatedly."""
        now = time.monotonic()
        with self._lock:
            if self.withheld and self.code is None and now - self._last_output > NOTICE:
                self._release()
        self.stopped = (self.stopped or now) if self._is_stopped() else 0.0
        if self.stopped and now - self.stopped > NOTICE and not self._reported:
            self._reported, pid = True, self.process.pid
            write([f"notice: rank {self.rank} is stopped and the others wait for it; `kill -CONT {pid}` resumes it\n"])

    def _is_stopped(self) -> bool:
        try:
            return self.code is None and psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            return False

    @property
    def code(self) -> int | None:
        """The exit status, once all its output has been read; None before."""
        return None if self._reader.is_alive() else self.process.returncode

    def send(self, signum: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signum)
            if hasattr(signal, "SIGCONT"):
                self.process.send_signal(signal.SIGCONT)  # a stopped process does not receive the signal

    def end(self) -> None:
        """Kill the rank if it still runs, and read the rest of its output."""
        self.killed = self.process.poll() is None
        self.process.kill()
        self.process.wait()
        self._reader.join()
