"""Several processes on this machine that train as one; this process only supervises them.

No rank lives in here, so nothing of a job leaks into the next one of a sweep. torchrun and srun start
ranks in their own way: see gptexp.machine.ranks.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from gptexp.config import Config
from gptexp.config.conversion import to_plain
from gptexp.machine import ranks, slurm
from gptexp.machine.rank_process import RankProcess, write
from gptexp.runs.result import interrupted
from gptexp.util.errors import RunError
from gptexp.util.signals import ENDING, is_ignored

FORWARDED = (*ENDING, *slurm.PREEMPTION)

# Seconds in which all ranks must have ended, once …
GRACE = 10.0  # one has died: the others may still say what they know
LEAVING = 90.0  # one has left because of a signal: rank 0 may still have SLURM queue the job again
FINISHING = 600.0  # one has come to its end: rank 0's loggers may still send what they hold
STOPPING = 600.0  # a signal was passed on: a step may take that long
FROZEN = 600.0  # one is stopped (SIGSTOP), and the others wait for it
LOOK = 1.0  # seconds between two looks at the processes


def start_ranks(config: Config, folder: Path, processes: int) -> None:
    """Start the ranks as children, hand them the composition, and wait for all.

    When one dies the others are ended; when this process dies, by whatever signal, so do they.

    Raises:
        RunError: a rank failed; says which, and with what.
        Interrupted: a signal stopped the run, with a checkpoint.
    """
    store, port = _serve()
    handed = json.dumps({"config": to_plain(config), "folder": str(folder.resolve())})
    children = [RankProcess(rank, _spawn(rank, processes, port, handed)) for rank in range(processes)]
    try:
        with _forwarding(children) as received:
            _wait(children, received)
    finally:
        for child in children:
            child.end()
        del store  # which served until now
    _conclude(children, received.signums)
    if received.signums and any(child.code != 0 for child in children):  # else the run had come to its end
        raise interrupted(received.signums[0], folder)


def _serve() -> tuple[Any, int]:
    """A store for the ranks' process group, on a free port of the loopback: no other machine reaches it."""
    from torch.distributed import TCPStore

    listening = socket.create_server(("127.0.0.1", 0), backlog=ranks.BACKLOG)
    port, descriptor = listening.getsockname()[1], listening.detach()
    return TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=descriptor), port


def _spawn(rank: int, processes: int, port: int, handed: str) -> subprocess.Popen[str]:
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "GROUP_RANK": 0}
    there = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True}
    threads = os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // processes)
    settings = {**own, **there, **_loopback(), "OMP_NUM_THREADS": threads}
    process = subprocess.Popen(
        [sys.executable, "-m", "gptexp.training.worker"],
        env={**os.environ, **{name: str(value) for name, value in settings.items()}},
        stdin=subprocess.PIPE,  # closes when this process dies
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # a terminal's Ctrl-C comes through us, once
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it has died already, as `_wait` will see
        process.stdin.write(f"{handed}\n")
        process.stdin.flush()
    return process


def _loopback() -> dict[str, str]:
    """Have gloo's sockets listen on the loopback too; it would take the address of the machine's name."""
    for name, addresses in psutil.net_if_addrs().items():
        if os.name == "posix" and any(address.address == "127.0.0.1" for address in addresses):
            return {"GLOO_SOCKET_IFNAME": name}
    return {}


@dataclass
class _Received:
    """The signals that this process has got, and when the first came."""

    signums: list[int] = field(default_factory=list)
    since: float = 0.0


@contextmanager
def _forwarding(children: list[RankProcess]) -> Iterator[_Received]:
    """Pass on to all ranks the signals that this process gets, and yield what has come.

    Each rank ends its step, saves and stops; a second SIGINT kills them.
    """
    received = _Received()

    def forward(signum: int, frame: object) -> None:
        again = signum == signal.SIGINT and signum in received.signums
        received.signums.append(signum)
        received.since = received.since or time.monotonic()
        for child in children:
            child.send(signal.SIGKILL if again else signum)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield received
        return
    former = {signum: signal.signal(signum, forward) for signum in FORWARDED if not is_ignored(signum)}
    try:
        yield received
    finally:
        for signum, handler in former.items():
            signal.signal(signum, handler)


def _failed(child: RankProcess) -> bool:
    """Ended neither well nor by a signal that it was to end by, which the others get as well."""
    return child.code not in (None, 0, *(128 + signum for signum in FORWARDED))


def _wait(children: list[RankProcess], received: _Received) -> None:
    """Until all have ended, or those that still run have had their time."""
    looked = time.monotonic()
    while any(child.code is None for child in children) and not _is_over(children, received):
        if time.monotonic() - looked > LOOK:
            for child in children:
                child.watch()
            looked = time.monotonic()
        time.sleep(0.02)


def _is_over(children: list[RankProcess], received: _Received) -> bool:
    """Whether the ranks have had their time; those that must be killed have it noted why."""
    running = [child for child in children if child.code is None]
    ended = [child for child in children if child.code is not None]
    frozen = [child for child in running if child.stopped]
    name = signal.Signals(received.signums[0]).name if received.signums else ""
    for seconds, since, blamed, why in (
        (GRACE, [child.died for child in ended if _failed(child)], running, "another rank had failed"),
        (LEAVING, [child.died for child in ended if child.code], running, "another rank had left"),
        (FINISHING, [child.died for child in ended], running, "another rank had finished"),
        (STOPPING, [received.since] if name else [], running, f"{name} was passed on to it"),
        (FROZEN, [child.stopped for child in frozen], frozen, "it was stopped (SIGSTOP)"),
    ):
        if since and time.monotonic() - min(since) > seconds:
            for child in blamed:
                child.overdue = f"had not ended {seconds:.0f} seconds after {why}"
            return True
    return False


def _conclude(children: list[RankProcess], received: list[int]) -> None:
    """Of several failures say the first; the others are mostly its echo. Ending by a signal that was sent is none."""
    sent = {128 + signum for signum in received} | {-signum for signum in received}
    killed = {-signal.SIGKILL} if received.count(signal.SIGINT) > 1 else set()  # what a second Ctrl-C does
    failed = [child for child in children if child.code not in {0, *sent, *killed} and not child.killed]
    failed.sort(key=lambda child: (ranks.LOST in _error(child), not _error(child), child.died))
    if failed:
        raise RunError(_cause(failed[0]))
    for child in children:
        if child.overdue:
            raise RunError(f"rank {child.rank} {child.overdue}, and was killed; the other ranks were stopped")


def _error(child: RankProcess) -> str:
    """The line that the rank wrote for the user, if it did."""
    return next((line for line in child.withheld if line.startswith("error: ")), "")


def _cause(child: RankProcess) -> str:
    """The line that the rank wrote for the user; without one it was a bug, and everything is shown."""
    who = "" if child.rank == 0 else f"rank {child.rank}: "
    if line := _error(child):
        return who + line.removeprefix("error: ").rstrip()
    write(child.withheld)
    assert child.code is not None
    if child.code < 0:
        name = signal.Signals(-child.code).name
        last = f" (its last line: {child.last})" if child.last else ""  # what a library says before it aborts
        hint = " (the system may have run out of memory)" if name == "SIGKILL" else last
        return f"rank {child.rank} was ended by {name}{hint}; the other ranks were stopped"
    return f"rank {child.rank} failed: {child.last or f'exit code {child.code}'}; the other ranks were stopped"
