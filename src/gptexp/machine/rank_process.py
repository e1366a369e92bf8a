"""One rank as a child of the process that supervises it: what it says, how it ended, whether it is stopped."""

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
NOTICE = 10.0  # seconds after which it is said that a rank is stopped, and that a last word was none
_FAREWELL = re.compile(r"error: |interrupted|(\[rank\d+\]: ?)?Traceback ")  # with what a rank says last


def write(lines: list[str]) -> None:
    """To standard error. It may have gone; that is no reason to stop reading what the ranks say."""
    with suppress(OSError, ValueError):
        sys.stderr.writelines(lines)
        sys.stderr.flush()


@dataclass
class RankProcess:
    """One rank's process. What it says for the user passes at once; an error is kept, to be told once.

    withheld: lines since one that looked like an error. died: when it ended. stopped: since when it has been
    stopped, 0 if it runs. killed: by the supervisor, and overdue why.
    """

    rank: int
    process: subprocess.Popen[str]
    withheld: list[str] = field(default_factory=list)
    last: str = ""  # the last line of all
    died: float = 0.0
    stopped: float = 0.0
    killed: bool = False
    overdue: str = ""

    def __post_init__(self) -> None:
        self._spoke = 0.0
        self._told = False
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
                self._pass_on()

    def _take(self, line: str) -> None:
        self.last, self._spoke = line.strip() or self.last, time.monotonic()
        if self.withheld or _FAREWELL.match(line):
            self.withheld.append(line)
            del self.withheld[:-KEPT_LINES]
        elif self.rank == 0:
            write([line])

    def _pass_on(self) -> None:
        """What looked like an error was none that ended the rank."""
        if self.rank == 0:
            write(self.withheld)
        self.withheld.clear()

    def watch(self) -> None:
        """Called now and then: pass on what was withheld if the rank goes on, and say once if it is stopped."""
        now = time.monotonic()
        with self._lock:
            if self.withheld and now - self._spoke > NOTICE:
                self._pass_on()
        self.stopped = (self.stopped or now) if self._is_stopped() else 0.0
        if self.stopped and now - self.stopped > NOTICE and not self._told:
            self._told, pid = True, self.process.pid
            write([f"notice: rank {self.rank} is stopped, and the others wait for it; `kill -CONT {pid}` resumes it\n"])

    def _is_stopped(self) -> bool:
        try:
            return self.code is None and psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            return False

    @property
    def code(self) -> int | None:
        """The exit status, once everything that it wrote has been read."""
        return None if self._reader.is_alive() else self.process.returncode

    def send(self, signum: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signum)
            if hasattr(signal, "SIGCONT"):
                self.process.send_signal(signal.SIGCONT)  # a stopped process would not see it

    def end(self) -> None:
        """Kill it if it still runs, and read what it has said."""
        self.killed = self.process.poll() is None
        self.process.kill()
        self.process.wait()
        self._reader.join()
