"""Start and supervise the ranks of a run on this machine.

The supervising process does not train, so no state of a job reaches the next job of a sweep. torchrun and srun
start ranks differently: see gptexp.machine.ranks.
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
from typing import TYPE_CHECKING, Any, TypedDict

import psutil

from gptexp.machine import rank_store, ranks, slurm
from gptexp.machine.rank_process import RankProcess, write
from gptexp.runs.result import interrupted
from gptexp.util.errors import RunError
from gptexp.util.signals import ENDING, is_ignored

if TYPE_CHECKING:
    from torch._C._distributed_c10d import TCPStore

FORWARDED = (*ENDING, *slurm.PREEMPTION)

# Seconds in which all ranks must have ended, once …
GRACE = 10.0  # one has failed: the others may still report their error
LEAVING = 90.0  # one has ended because of a signal: rank 0 may still have SLURM requeue the job
FINISHING = 600.0  # one has completed: the loggers of rank 0 may still send data
STOPPING = 600.0  # a signal was forwarded: a step may take that long
FROZEN = 600.0  # one is stopped (SIGSTOP), and the others wait for it
LOOK = 1.0  # seconds between two checks of the processes


class Composition(TypedDict):
    """What a rank needs to train: the settings as plain data, the run folder, and its steps if they are resolved.

    resolution: a file in which runs share the steps of trainer.max_time. sharing: `Sharing.as_plain` of a job that
    shares steps with others.
    """

    config: dict[str, Any]
    folder: str
    steps: int | None
    resolution: str | None
    sharing: dict[str, Any] | None


def start_ranks(composition: Composition, folder: Path, processes: int) -> None:
    """Start the ranks as child processes, send them the composition, and wait for all.

    When one fails the others are ended. When this process ends, also by SIGKILL, the ranks end too.

    Raises:
        RunError: a rank failed; the message names the rank and its error.
        Interrupted: a signal stopped the run, with a checkpoint.
    """
    store, port = _serve()
    line = json.dumps(composition)
    children = [RankProcess(rank, _spawn(rank, processes, port, line)) for rank in range(processes)]
    try:
        with _forwarding(children) as received:
            _wait(children, received)
    finally:
        for child in children:
            child.end()
        del store  # the ranks needed it until here
    _raise_failure(children, received.signums)
    if received.signums and any(child.code != 0 for child in children):  # otherwise the run is complete
        raise interrupted(received.signums[0], folder)


def _serve() -> tuple[TCPStore, int]:
    """Return a store for the ranks' process group and its port, on the loopback: no other machine can connect."""
    from torch._C._distributed_c10d import TCPStore  # torch is slow to import; a refused start does not need it

    listening = socket.create_server(("127.0.0.1", 0), backlog=rank_store.BACKLOG)
    port, descriptor = listening.getsockname()[1], listening.detach()
    return TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=descriptor), port


def _spawn(rank: int, processes: int, port: int, composition: str) -> subprocess.Popen[str]:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "GROUP_RANK": 0}
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True}
    threads = os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // processes)
    settings = {**place, **rendezvous, **_loopback(), "OMP_NUM_THREADS": threads}
    process = subprocess.Popen(
        [sys.executable, "-m", "gptexp.training.worker"],
        env={**os.environ, **{name: str(value) for name, value in settings.items()}},
        stdin=subprocess.PIPE,  # closes when this process dies
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C in a terminal reaches the ranks once, through this process
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it has already ended; `_wait` handles that
        process.stdin.write(f"{composition}\n")
        process.stdin.flush()
    return process


def _loopback() -> dict[str, str]:
    """Return the variable that binds gloo to the loopback; its default is the address of the host name."""
    for name, addresses in psutil.net_if_addrs().items():
        if os.name == "posix" and any(address.address == "127.0.0.1" for address in addresses):
            return {"GLOO_SOCKET_IFNAME": name}
    return {}


@dataclass
class _Received:
    """The signals that this process has received, and the time of the first."""

    signums: list[int] = field(default_factory=list)
    since: float = 0.0


@contextmanager
def _forwarding(children: list[RankProcess]) -> Iterator[_Received]:
    """Forward signals to all ranks, and yield the signals received.

    Each rank completes its step, saves and stops. A second SIGINT kills the ranks.
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
    """Return whether the rank has ended with an error, not by a signal that is forwarded to all ranks."""
    return child.code not in (None, 0, *(128 + signum for signum in FORWARDED))


def _wait(children: list[RankProcess], received: _Received) -> None:
    """Wait until all ranks have ended or a time limit is over."""
    looked = time.monotonic()
    while any(child.code is None for child in children) and not _is_over(children, received):
        if time.monotonic() - looked > LOOK:
            for child in children:
                child.watch()
            looked = time.monotonic()
        time.sleep(0.02)


def _is_over(children: list[RankProcess], received: _Received) -> bool:
    """Return whether a time limit is over; the reason is stored in the ranks that must be killed."""
    running = [child for child in children if child.code is None]
    ended = [child for child in children if child.code is not None]
    frozen = [child for child in running if child.stopped]
    name = signal.Signals(received.signums[0]).name if received.signums else ""
    for seconds, since, blamed, why in (
        (GRACE, [child.died for child in ended if _failed(child)], running, "another rank had failed"),
        (LEAVING, [child.died for child in ended if child.code], running, "another rank had left"),
        (FINISHING, [child.died for child in ended], running, "another rank had finished"),
        (STOPPING, [received.since] if name else [], running, f"{name} was forwarded to it"),
        (FROZEN, [child.stopped for child in frozen], frozen, "it was stopped (SIGSTOP)"),
    ):
        if since and time.monotonic() - min(since) > seconds:
            for child in blamed:
                child.overdue = f"had not ended {seconds:.0f} seconds after {why}"
            return True
    return False


def _raise_failure(children: list[RankProcess], received: list[int]) -> None:
    """Raise the first failure; later ones mostly follow from it. Ending by a forwarded signal is not a failure."""
    sent = {128 + signum for signum in received} | {-signum for signum in received}
    killed = {-signal.SIGKILL} if received.count(signal.SIGINT) > 1 else set()  # by a second Ctrl-C
    failed = [child for child in children if child.code not in {0, *sent, *killed} and not child.killed]
    failed.sort(key=lambda child: (ranks.LOST in _error(child), not _error(child), child.died))
    if failed:
        raise RunError(_cause(failed[0]))
    for child in children:
        if child.overdue:
            raise RunError(f"rank {child.rank} {child.overdue} and was killed; the other ranks were stopped")


def _error(child: RankProcess) -> str:
    """Return the error line that the rank printed, or an empty string."""
    return next((line for line in child.withheld if line.startswith("error: ")), "")


def _cause(child: RankProcess) -> str:
    """Return the rank's error line. Without one the failure is a bug: print all of the rank's output."""
    prefix = "" if child.rank == 0 else f"rank {child.rank}: "
    if line := _error(child):
        return prefix + line.removeprefix("error: ").rstrip()
    write(child.withheld)
    assert child.code is not None
    if child.code < 0:
        name = signal.Signals(-child.code).name
        last = f" (its last line: {child.last})" if child.last else ""  # printed by a library before it aborts
        hint = " (the system may have run out of memory)" if name == "SIGKILL" else last
        return f"rank {child.rank} was ended by {name}{hint}; the other ranks were stopped"
    return f"rank {child.rank} failed: {child.last or f'exit code {child.code}'}; the other ranks were stopped"
