"""Which of several processes this one is, whoever started them, and what rank 0 tells the others (no torch at import).

torchrun, srun and gptexp's own launcher all say it by RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE.
Before the ranks form a process group they share a key-value store at MASTER_ADDR:MASTER_PORT. Over it
rank 0 hands on what it alone has composed, so that all train with the same settings in one folder.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

START_TIMEOUT = timedelta(minutes=10)  # for nodes that start later than others
COMPOSITION, PREPARED = "composition", "prepared"


@dataclass(frozen=True, slots=True)
class Rank:
    """One process of `size`, spread over nodes of `local_size` each."""

    rank: int
    size: int
    local_rank: int
    local_size: int

    @property
    def nodes(self) -> int:
        return self.size // self.local_size


def current(environment: Mapping[str, str] = os.environ) -> Rank | None:
    """This process among its ranks; None where no launcher has started several."""
    if "RANK" not in environment or int(environment.get("WORLD_SIZE", 1)) < 2:
        return None
    rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    local_size = int(environment.get("LOCAL_WORLD_SIZE", size))
    return Rank(rank, size, int(environment.get("LOCAL_RANK", rank % local_size)), local_size)


@cache
def _store() -> Any:
    """The launcher's store, or, where the launcher has none, one that rank 0 serves and its process group shares."""
    from torch.distributed import PrefixStore, TCPStore

    who = current()
    assert who is not None
    serves = who.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=serves,
        timeout=START_TIMEOUT,
        wait_for_workers=False,
        multi_tenant=True,
    )
    return PrefixStore(prefix(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")), store)


def prefix(attempt: str = "0") -> str:
    """Where our keys stand, apart from the process group's; a restart by torchrun begins anew."""
    return f"gptexp/{attempt}"


def tell(key: str, value: object) -> None:
    """Rank 0: hand plain data on to the others."""
    _store().set(key, json.dumps(value))


def hear(key: str, *, patience: timedelta = START_TIMEOUT) -> Any:
    """Another rank: wait for what rank 0 tells.

    Raises:
        ValueError: nothing came.
    """
    from torch.distributed import DistStoreError

    try:
        _store().wait([key], patience)
    except DistStoreError:
        raise ValueError(f"rank 0 has not been heard from in {patience.total_seconds() / 60:.0f} minutes") from None
    return json.loads(_store().get(key))


@contextmanager
def first_then_others(key: str) -> Iterator[None]:
    """A context that rank 0 passes first; the others enter when it is through."""
    who = current()
    if who is not None and who.rank > 0:
        hear(key, patience=timedelta(days=30))  # a large corpus takes as long as it takes; a death ends the wait
    yield
    if who is not None and who.rank == 0:
        tell(key, True)


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
        yield
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        raise


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
