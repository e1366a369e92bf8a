"""The key-value store that the ranks of a run share before and while they train (no torch at import)."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from contextlib import suppress
from datetime import timedelta
from functools import cache
from typing import Any

from gptexp.machine.rank_environment import Rank, current, remedy

START_TIMEOUT = timedelta(minutes=10)  # nodes may start at different times
ANSWER_TIMEOUT = timedelta(seconds=5)  # of a store that may be ending
BACKLOG = 1024  # ranks that may connect at once
NOTICE = 10.0  # seconds of waiting until a rank reports for whom it waits
PREFIX = "gptexp"  # of the keys
ANNOUNCED = f"{PREFIX}/port"  # in the store of torchrun's agent: the port of the store of the present ranks

_OPTIONS: dict[str, Any] = {"timeout": START_TIMEOUT, "wait_for_workers": False, "multi_tenant": True}
connected: list[bool] = []  # not empty once this process has the store


@cache
def store() -> Any:
    """Return the launcher's store; without one, a store that rank 0 serves and the process group shares."""
    from torch._C._distributed_c10d import PrefixStore

    who = current()
    assert who is not None
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if serves(who):
        shared = _serve(address, port)
    else:
        _await_port(who, address, port)
        shared = _client(address, port)
        if "TORCHELASTIC_RESTART_COUNT" in os.environ:
            shared = _store_of_this_start(who, address, shared)
    connected.append(True)
    return PrefixStore(PREFIX, shared)


def _serve(address: str, port: int) -> Any:
    from torch._C._distributed_c10d import TCPStore

    served = _listen(address, port)
    port = served.getsockname()[1]
    return TCPStore(address, port, is_master=True, master_listen_fd=served.detach(), **_OPTIONS)


def _client(address: str, port: int, timeout: timedelta = START_TIMEOUT) -> Any:
    from torch._C._distributed_c10d import TCPStore

    return TCPStore(address, port, is_master=False, **_OPTIONS | {"timeout": timeout})


def _store_of_this_start(who: Rank, address: str, agents: Any) -> Any:
    """Return a store for one start of the ranks, which the process group then shares.

    The store of torchrun's agent outlives the ranks, so after a restart it contains the keys of the dead ones, those of
    the process group included. The agents of several nodes may count restarts differently. Therefore rank 0 serves a
    new store and announces it in the agent's. A rank that finds a dead one, or one that its predecessor joined, waits.
    """
    patience = Patience(START_TIMEOUT)
    if who.rank == 0:
        shared = _serve(address, 0)
        agents.set(ANNOUNCED, str(shared.port))
    else:
        while (shared := _joined(who, address, agents)) is None:
            patience.spend(f"rank {who.rank}", "rank 0")
    os.environ |= {"MASTER_PORT": str(shared.port), "TORCHELASTIC_USE_AGENT_STORE": str(False)}
    return shared


def _joined(who: Rank, address: str, agents: Any) -> Any:
    """Return the announced store, or None if it is not the one of this start."""
    if not agents.check([ANNOUNCED]):
        return None
    port = int(agents.get(ANNOUNCED))
    with suppress(OSError, RuntimeError):  # it is gone, or goes while this rank connects
        socket.create_connection((address, port), timeout=2).close()
        found = _client(address, port, ANSWER_TIMEOUT)
        if found.add(f"{PREFIX}/joined/{who.rank}", 1) == 1:
            found.set_timeout(START_TIMEOUT)
            return found
    return None


def serves(who: Rank) -> bool:
    """Return whether this rank serves the store, which torchrun's agent and gptexp's launcher may do themselves."""
    return who.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


def _listen(address: str, port: int) -> socket.socket:
    """Return a listening socket; only on the loopback interface if all ranks are on this machine."""
    try:
        if address == "localhost" or address.startswith("127."):
            return socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        with suppress(OSError):  # IPv6 may be disabled, or the port in use
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
        return socket.create_server(("", port), backlog=BACKLOG)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise ValueError(f"MASTER_PORT={port}: in use on this machine; set another port for all ranks") from None


def _await_port(who: Rank, address: str, port: int) -> None:
    """Wait until a server listens there. torch's client would wait silently and ignore Ctrl-C."""
    patience = Patience(START_TIMEOUT)
    while True:
        try:
            socket.create_connection((address, port), timeout=2).close()
            return
        except OSError as error:
            patience.spend(f"rank {who.rank}", "rank 0", f"no answer: {error.strerror or error}")


class Patience:
    """The time that a rank waits for others: a notice after ten seconds, an error after the limit."""

    def __init__(self, limit: timedelta) -> None:
        self.limit, self.began, self.notified = limit.total_seconds(), time.monotonic(), False

    def spend(self, waiting: str, missing: str, detail: str = "") -> None:
        """Sleep for a moment.

        Raises:
            ValueError: the limit is exceeded.
        """
        waited = time.monotonic() - self.began
        place = f"at {os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}{f' ({detail})' if detail else ''}"
        if waited > self.limit:
            raise ValueError(f"{waiting} has not heard from {missing} in {waited / 60:.0f} minutes {place}; {remedy()}")
        if waited > NOTICE and not self.notified:
            self.notified = True
            advice = f"; {remedy()}" if self.limit <= START_TIMEOUT.total_seconds() else ""
            print(f"notice: {waiting} waits for {missing} {place}{advice}", file=sys.stderr)
        time.sleep(min(1.0, max(0.02, waited / 20)))
