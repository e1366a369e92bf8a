"""Communication between the ranks of a run (no torch at import).

Before the ranks form a process group, they share a key-value store at MASTER_ADDR:MASTER_PORT. Rank 0 sends the
composed settings and the folder through it, and the ranks compare the data, code and libraries that each one has.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from gptexp.machine.rank_environment import Rank, current
from gptexp.machine.rank_store import START_TIMEOUT, Patience, connected, serves, store
from gptexp.util.errors import USER_ERROR
from gptexp.util.text import first_line

NO_LIMIT = timedelta(days=30)  # preparing a large corpus takes long; the end of any rank ends the wait
LINGER = 10.0  # seconds that a failed rank 0 waits, so that ranks that start later learn of the failure
ROLL_CALL = 3.0  # seconds in which ranks that lost contact report that they are alive
LOST = "ended or did not respond"  # part of the error of a rank that ends because of another
COMPOSITION, PREPARED, ALIKE, ENDED = "composition", "prepared", "alike", "ended"


def open_store() -> None:
    """Start the store on rank 0, so that the other ranks can connect; connect to it on another rank.

    Raises:
        ValueError: MASTER_PORT is in use, or the launcher's store does not answer.
    """
    store()


def connect() -> None:
    """Wait for the other ranks: rank 0 for all of them, the others for its store.

    Raises:
        ValueError: a rank is missing.
    """
    who = current()
    assert who is not None
    if who.rank:
        send(f"here/{who.rank}", True)
    else:
        _await([f"here/{rank}" for rank in range(1, who.size)], START_TIMEOUT)


def send(key: str, value: object) -> None:
    """Send plain data to the other ranks."""
    store().set(key, json.dumps(value))


def receive(key: str, *, timeout: timedelta = START_TIMEOUT) -> Any:
    """Wait for plain data from rank 0, and return it.

    Raises:
        ValueError: nothing arrived.
        SystemExit: another rank failed and reported the error.
    """
    _await([key], timeout)
    return json.loads(store().get(key))


def _await(keys: Sequence[str], limit: timedelta) -> None:
    """Wait until all keys exist. Rank 3 sends the keys `…/3`, rank 0 those without a number."""
    who, patience = current(), Patience(limit)
    missing = list(keys)
    try:
        while missing := [key for key in missing if not store().check([key])]:
            if store().check([ENDED]):
                sys.exit(USER_ERROR)
            named = [key.partition("/")[2] or "0" for key in missing]
            patience.spend(f"rank {who.rank if who else 0}", f"rank{'s' * (len(named) > 1)} {', '.join(named)}")
    except RuntimeError:  # the process that served the store has ended
        sys.exit(USER_ERROR)


@contextmanager
def first_then_others(key: str) -> Iterator[None]:
    """A context that the other ranks enter after rank 0 has left it."""
    who = current()
    if who is not None and who.rank > 0:
        receive(key, timeout=NO_LIMIT)
    yield
    if who is not None and who.rank == 0:
        send(key, True)


def require_alike(facts: Mapping[str, str]) -> None:
    """Compare the facts of each rank with those of rank 0.

    Raises:
        ValueError: on rank 0, for the first difference. The other ranks end.
    """
    who = current()
    if who is None:
        return
    if who.rank:
        send(f"facts/{who.rank}", facts)
        receive(ALIKE, timeout=NO_LIMIT)
        return
    _await([f"facts/{rank}" for rank in range(1, who.size)], NO_LIMIT)
    for rank in range(1, who.size):
        others = json.loads(store().get(f"facts/{rank}"))
        for name in sorted(facts.keys() | others.keys()):
            if others.get(name) != facts.get(name):
                raise ValueError(
                    f"rank {rank}: its {name} is {others.get(name)}, but rank 0 has {facts.get(name)}; "
                    "all ranks need the same data, code and libraries"
                )
    send(ALIKE, True)


def lost_contact(error: RuntimeError) -> str | None:
    """Return a message that names the lost ranks if a collective failed; None for another error."""
    who, message = current(), str(error)
    if who is None or not ("gloo" in message or type(error).__name__.startswith("Dist")):
        return None
    missing = _silent(who)
    names = f"rank{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}" if missing else "another rank"
    return f"{names} {LOST} ({first_line(error).split('. ')[0]}); see its output"


def _silent(who: Rank) -> list[int]:
    """Return the ranks that do not report the same error within a few seconds."""
    began, others = time.monotonic(), [rank for rank in range(who.size) if rank != who.rank]
    try:
        send(f"alive/{who.rank}", True)
        while others and time.monotonic() - began < ROLL_CALL:
            others = [rank for rank in others if not store().check([f"alive/{rank}"])]
            time.sleep(0.05)
    except RuntimeError:
        return [0]  # the process that served the store has ended
    return others


# --------------------------------------------------------------------------------------- end


def _send_end() -> None:
    """Notify waiting ranks of the end; if this rank serves the store, wait for ranks that are still starting."""
    if not connected:
        return
    send(ENDED, True)
    who, began = current(), time.monotonic()
    if who is not None and serves(who):
        keys = [f"here/{rank}" for rank in range(1, who.size)]
        while not store().check(keys) and time.monotonic() - began < LINGER:
            time.sleep(0.05)
        time.sleep(0.5)


@contextmanager
def exit_without_finalization() -> Iterator[None]:
    """Let the process of a rank end after its exit functions, without finalizing the interpreter.

    A thread of gloo may hold the last reference to a tensor after the main thread has ended. Releasing it while the
    interpreter is finalized aborts the process after its work is done (pytorch/pytorch#179291). Enter this context
    early: exit functions run in reverse order, and this one must be the last.
    """
    code = 1  # of an uncaught exception

    def leave() -> None:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    atexit.register(leave)
    try:
        with notify_on_failure():
            yield
        code = 0
    except SystemExit as stop:
        code = _exit_code(stop)
        raise


@contextmanager
def notify_on_failure() -> Iterator[None]:
    """Notify the waiting ranks if this rank fails."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, SystemExit) or _exit_code(error):
            with suppress(RuntimeError):  # the store may have ended
                _send_end()
        raise


def _exit_code(stop: SystemExit) -> int:
    return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
