"""Several processes on this machine that train as one; this process only supervises them.

No rank lives in here, so nothing of a job leaks into the next one of a sweep. torchrun and srun start
ranks in their own way: see gptexp.ranks.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptexp import ranks, slurm
from gptexp.config import Config
from gptexp.runs import Interrupted, RunError
from gptexp.schemas import to_plain
from gptexp.worker import PARENT

GRACE = 3.0  # seconds in which the other ranks may still say what they know, once one has died
FORWARDED = (signal.SIGINT, signal.SIGTERM, *slurm.PREEMPTION)
KEPT_LINES = 400
_FAREWELL = re.compile(r"error: |interrupted|(\[rank\d+\]: ?)?Traceback ")  # with what a rank says last


def start_ranks(config: Config, folder: Path, processes: int) -> None:
    """Start the ranks as children, hand them the composition, and wait for all.

    When one dies the others are ended; when this process dies, by whatever signal, so do they.

    Raises:
        RunError: a rank failed; says which, and with what.
        Interrupted: a signal stopped the run, with a checkpoint.
    """
    store = _serve(config, folder)
    children = [_Child(rank, _spawn(rank, processes, store.port)) for rank in range(processes)]
    try:
        with _forwarding(children) as received:
            _wait(children)
    finally:
        for child in children:
            child.end()
    _conclude(children, received)
    if received and any(child.code != 0 for child in children):  # else the run had come to its end
        raise Interrupted(received[0], folder)


def _serve(config: Config, folder: Path) -> Any:
    """A store on a free port that holds what the ranks wait for."""
    import json

    from torch.distributed import PrefixStore, TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    handed = {"config": to_plain(config), "folder": str(folder.resolve())}
    PrefixStore(ranks.prefix(), store).set(ranks.COMPOSITION, json.dumps(handed))
    return store


def _spawn(rank: int, processes: int, port: int) -> subprocess.Popen[str]:
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "GROUP_RANK": 0}
    there = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True, PARENT: os.getpid()}
    threads = os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // processes)
    settings = {**own, **there, "OMP_NUM_THREADS": threads}
    return subprocess.Popen(
        [sys.executable, "-m", "gptexp.worker"],
        env={**os.environ, **{name: str(value) for name, value in settings.items()}},
        stdin=subprocess.PIPE,  # closes when this process dies
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # a terminal's Ctrl-C comes through us, once
    )


@dataclass
class _Child:
    """One rank's process. What it says for the user passes at once; an error is kept, to be told once."""

    rank: int
    process: subprocess.Popen[str]
    withheld: list[str] = field(default_factory=list)
    last: str = ""  # the last line of all
    died: float = 0.0  # when

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.last = line.strip() or self.last
            if self.withheld or _FAREWELL.match(line):
                self.withheld.append(line)
                del self.withheld[:-KEPT_LINES]
            elif self.rank == 0:
                sys.stderr.write(line)
        self.process.wait()
        self.died = time.monotonic()

    @property
    def code(self) -> int | None:
        """The exit status, once everything that it wrote has been read."""
        return None if self._reader.is_alive() else self.process.returncode

    @property
    def failed(self) -> bool:
        """Ended neither well nor by a signal that it was to end by, which the others get as well."""
        return self.code not in (None, 0, *(128 + signum for signum in FORWARDED))

    def send(self, signum: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signum)

    def end(self) -> None:
        self.send(signal.SIGKILL)
        self.process.wait()
        self._reader.join()


@contextmanager
def _forwarding(children: list[_Child]) -> Iterator[list[int]]:
    """Pass on to all ranks the signals that this process gets, and yield a list of them.

    Each rank ends its step, saves and stops; a second SIGINT kills them.
    """
    received: list[int] = []

    def forward(signum: int, frame: object) -> None:
        again = signum == signal.SIGINT and signum in received
        received.append(signum)
        for child in children:
            child.send(signal.SIGKILL if again else signum)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield received
        return
    former = {signum: signal.signal(signum, forward) for signum in FORWARDED}
    try:
        yield received
    finally:
        for signum, handler in former.items():
            signal.signal(signum, handler)


def _wait(children: list[_Child]) -> None:
    """Until all have ended, or one has failed and the others had their grace."""
    deadline = float("inf")
    while any(child.code is None for child in children) and time.monotonic() < deadline:
        if deadline == float("inf") and any(child.failed for child in children):
            deadline = time.monotonic() + GRACE
        time.sleep(0.02)


def _conclude(children: list[_Child], received: list[int]) -> None:
    """Of several failures say the first: the others are mostly its echo. Ending by a signal that was sent is none."""
    sent = {128 + signum for signum in received} | {-signum for signum in received}
    killed = {-signal.SIGKILL} if received.count(signal.SIGINT) > 1 else set()  # what a second Ctrl-C does
    failed = [child for child in children if child.code not in {0, *sent, *killed}]
    failed.sort(key=lambda child: child.died)
    if failed:
        raise RunError(_cause(failed[0]))


def _cause(child: _Child) -> str:
    """The line that the rank wrote for the user; without one it was a bug, and everything is shown."""
    who = "" if child.rank == 0 else f"rank {child.rank}: "
    for line in child.withheld:
        if line.startswith("error: "):
            return who + line.removeprefix("error: ").rstrip()
    sys.stderr.writelines(child.withheld)
    assert child.code is not None
    if child.code < 0:
        name = signal.Signals(-child.code).name
        last = f" (its last line: {child.last})" if child.last else ""  # what a library says before it aborts
        hint = " (the system may have run out of memory)" if name == "SIGKILL" else last
        return f"rank {child.rank} was ended by {name}{hint}; the other ranks were stopped"
    return f"rank {child.rank} failed: {child.last or f'exit code {child.code}'}; the other ranks were stopped"
