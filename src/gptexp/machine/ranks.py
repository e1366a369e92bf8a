"""What the ranks of a run tell each other, whoever started them (no torch at import).

Before the ranks form a process group they share a key-value store at MASTER_ADDR:MASTER_PORT. Over it
rank 0 hands on what it alone has composed, so that all train with the same settings in one folder, and
they compare what each of them has read for itself.
"""

from __future__ import annotations

import atexit
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import Any

from gptexp.machine.rank_environment import Rank, current, remedy
from gptexp.util.text import first_line

START_TIMEOUT = timedelta(minutes=10)  # for nodes that start later than others
NO_LIMIT = timedelta(days=30)  # a large corpus takes as long as it takes; the end of any rank ends the wait
LINGER = 10.0  # seconds that a rank 0 that has failed stays for those who come later
ROLL_CALL = 3.0  # seconds in which ranks that have lost contact say that they are there
ECHO = "ended, or gave no answer"  # of a rank that ends because of another
BACKLOG = 1024  # ranks that may connect at once
NOTICE = 10.0  # seconds of waiting after which a rank says for whom
COMPOSITION, PREPARED, ALIKE, ENDED = "composition", "prepared", "alike", "ended"
USER_ERROR = 2  # as the commands' exit code


# ------------------------------------------------------------------------------------- store


_connected: list[bool] = []


@cache
def _store() -> Any:
    """The launcher's store, or, where the launcher has none, one that rank 0 serves and its process group shares."""
    from torch.distributed import PrefixStore, TCPStore

    who = current()
    assert who is not None
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    options: dict[str, Any] = {"timeout": START_TIMEOUT, "wait_for_workers": False, "multi_tenant": True}
    if _serves(who):
        served = _listen(address, port)
        store = TCPStore(address, port, is_master=True, master_listen_fd=served.detach(), **options)
    else:
        _await_port(who, address, port)
        store = TCPStore(address, port, is_master=False, **options)
    _connected.append(True)
    return PrefixStore(prefix(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")), store)


def _listen(address: str, port: int) -> socket.socket:
    """A listening socket; on the loopback alone where all ranks must be on this machine."""
    try:
        if address == "localhost" or address.startswith("127."):
            return socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        with suppress(OSError):  # IPv6 may be switched off, or the port be in use
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
        return socket.create_server(("", port), backlog=BACKLOG)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise ValueError(f"MASTER_PORT={port}: in use on this machine; give all ranks another one") from None


def _await_port(who: Rank, address: str, port: int) -> None:
    """Until somebody listens there. torch's own client waits in silence, and deaf to Ctrl-C."""
    patience = _Patience(START_TIMEOUT)
    while True:
        try:
            socket.create_connection((address, port), timeout=2).close()
            return
        except OSError as error:
            patience.spend(f"rank {who.rank}", "rank 0", f"no answer there: {error.strerror or error}")


class _Patience:
    """The time that a rank waits for others: a notice after ten seconds, an error at the end."""

    def __init__(self, limit: timedelta) -> None:
        self.limit, self.began, self.told = limit.total_seconds(), time.monotonic(), False

    def spend(self, waiting: str, missing: str, detail: str = "") -> None:
        """Sleep for a moment.

        Raises:
            ValueError: the time is over.
        """
        waited = time.monotonic() - self.began
        place = f"at {os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}{f' ({detail})' if detail else ''}"
        if waited > self.limit:
            raise ValueError(f"{waiting} has not heard from {missing} in {waited / 60:.0f} minutes {place}; {remedy()}")
        if waited > NOTICE and not self.told:
            self.told = True
            advice = f"; {remedy()}" if self.limit <= START_TIMEOUT.total_seconds() else ""
            print(f"notice: {waiting} waits for {missing} {place}{advice}", file=sys.stderr)
        time.sleep(min(1.0, max(0.02, waited / 20)))


def prefix(attempt: str = "0") -> str:
    """Where our keys stand, apart from the process group's; a restart by torchrun begins anew."""
    return f"gptexp/{attempt}"


def serve() -> None:
    """Rank 0: let the others find the store before anything else is done.

    Raises:
        ValueError: MASTER_PORT is in use, or nobody answers there.
    """
    _store()


def connect() -> None:
    """Join the other ranks: rank 0 waits for all of them, they wait for its store.

    Raises:
        ValueError: somebody isn't there.
    """
    who = current()
    assert who is not None
    if who.rank:
        tell(f"here/{who.rank}", True)
    else:
        _await([f"here/{rank}" for rank in range(1, who.size)], START_TIMEOUT)


def tell(key: str, value: object) -> None:
    """Hand plain data on to the other ranks."""
    _store().set(key, json.dumps(value))


def hear(key: str, *, patience: timedelta = START_TIMEOUT) -> Any:
    """Wait for what rank 0 tells.

    Raises:
        ValueError: nothing came.
        SystemExit: another rank has failed, and has said why.
    """
    _await([key], patience)
    return json.loads(_store().get(key))


def _await(keys: Sequence[str], limit: timedelta) -> None:
    """Until all keys are there. A key `…/3` is told by rank 3, any other by rank 0."""
    who, patience = current(), _Patience(limit)
    missing = list(keys)
    try:
        while missing := [key for key in missing if not _store().check([key])]:
            if _store().check([ENDED]):
                sys.exit(USER_ERROR)
            named = [key.partition("/")[2] or "0" for key in missing]
            patience.spend(f"rank {who.rank if who else 0}", f"rank{'s' * (len(named) > 1)} {', '.join(named)}")
    except RuntimeError:  # the store has gone, with the process that served it
        sys.exit(USER_ERROR)


@contextmanager
def first_then_others(key: str) -> Iterator[None]:
    """A context that rank 0 passes first; the others enter when it is through."""
    who = current()
    if who is not None and who.rank > 0:
        hear(key, patience=NO_LIMIT)
    yield
    if who is not None and who.rank == 0:
        tell(key, True)


def require_alike(facts: Mapping[str, str]) -> None:
    """Compare what each rank has found for itself with what rank 0 has.

    Raises:
        ValueError: on rank 0, naming the rank, the fact and both values. The others end.
    """
    who = current()
    if who is None:
        return
    if who.rank:
        tell(f"facts/{who.rank}", facts)
        hear(ALIKE, patience=NO_LIMIT)
        return
    _await([f"facts/{rank}" for rank in range(1, who.size)], NO_LIMIT)
    for rank in range(1, who.size):
        theirs = json.loads(_store().get(f"facts/{rank}"))
        for name in sorted(facts.keys() | theirs.keys()):
            if theirs.get(name) != facts.get(name):
                raise ValueError(
                    f"rank {rank}: its {name} is {theirs.get(name)}, but rank 0 has {facts.get(name)}; "
                    "all ranks need the same text, code and libraries"
                )
    tell(ALIKE, True)


def lost_contact(error: RuntimeError) -> str | None:
    """What a collective that broke off means for the user: which ranks have gone; None for another error."""
    who, said = current(), str(error)
    if who is None or not ("gloo" in said or type(error).__name__.startswith("Dist")):
        return None
    missing = _silent(who)
    names = f"rank{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}" if missing else "another rank"
    return f"{names} {ECHO} ({first_line(error).split('. ')[0]}); see what was said there"


def _silent(who: Rank) -> list[int]:
    """The ranks that don't come upon the same error in a moment."""
    began, others = time.monotonic(), [rank for rank in range(who.size) if rank != who.rank]
    try:
        tell(f"alive/{who.rank}", True)
        while others and time.monotonic() - began < ROLL_CALL:
            others = [rank for rank in others if not _store().check([f"alive/{rank}"])]
            time.sleep(0.05)
    except RuntimeError:
        return [0]  # the store has gone, with the process that served it
    return others


# --------------------------------------------------------------------------------------- end


def _tell_end() -> None:
    """Tell ranks that wait; where this one serves the store, those that are still starting shall read it."""
    if not _connected:
        return
    tell(ENDED, True)
    who, began = current(), time.monotonic()
    if who is not None and _serves(who):
        keys = [f"here/{rank}" for rank in range(1, who.size)]
        while not _store().check(keys) and time.monotonic() - began < LINGER:
            time.sleep(0.05)
        time.sleep(0.5)


def _serves(who: Rank) -> bool:
    """Whether this rank serves the store; torchrun's agent and gptexp's own launcher have one."""
    return who.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


@contextmanager
def ending_whole() -> Iterator[None]:
    """All that a rank does: its process then ends after its exit functions, without taking the interpreter down.

    A thread of gloo's may hold a tensor's last reference for longer than the main thread lives. To let go of it
    while the interpreter is being taken down aborts the process, with all its work done (pytorch/pytorch#179291).
    To be entered early, because exit functions run in reverse and this one is to be the last.
    """
    code = 1  # of an exception that nobody catches

    def leave() -> None:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    atexit.register(leave)
    try:
        with ending_by_telling():
            yield
        code = 0
    except SystemExit as stop:
        code = _exit_code(stop)
        raise


@contextmanager
def ending_by_telling() -> Iterator[None]:
    """Ranks that wait for this one are told when it fails."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, SystemExit) or _exit_code(error):
            with suppress(RuntimeError):  # the store may have gone
                _tell_end()
        raise


def _exit_code(stop: SystemExit) -> int:
    return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


class Agreement:
    """Small numbers of which every rank learns the largest, one call later, so that no step waits for another rank.

    All ranks must call `exchange` equally often. Alone, a rank agrees with itself at once.
    """

    def __init__(self) -> None:
        from torch import distributed

        together = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
        self._group = distributed.new_group(backend="gloo") if together else None
        self._work: Any = None
        self._numbers: Any = None

    def exchange(self, *numbers: int) -> list[int]:
        """What all ranks together said in the last call; say these for the next one."""
        if self._group is None:
            return list(numbers)
        import torch

        agreed = self.settle() or [0] * len(numbers)
        self._numbers = torch.tensor(numbers)
        self._work = torch.distributed.all_reduce(
            self._numbers, torch.distributed.ReduceOp.MAX, self._group, async_op=True
        )
        return agreed

    def settle(self) -> list[int]:
        """Wait for what is under way; nothing is afterwards."""
        if self._work is None:
            return []
        self._work.wait()
        self._work = None
        return [int(number) for number in self._numbers]
