"""The rank of this process, from the environment variables of its launcher (no torch).

torchrun, gptexp's launcher and, after `slurm.adopt`, srun set RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from gptexp.machine import slurm

RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
ADDRESS_VARIABLES = ("MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Rank:
    """One of `size` processes, with `local_size` processes per node."""

    rank: int
    size: int
    local_rank: int
    local_size: int

    @property
    def nodes(self) -> int:
        return self.size // self.local_size


def current(environment: Mapping[str, str] = os.environ) -> Rank | None:
    """Return the rank of this process; None for a single process."""
    if not environment.get("RANK") or int(environment.get("WORLD_SIZE") or 1) < 2:
        return None
    rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    local_size = int(environment.get("LOCAL_WORLD_SIZE") or size)
    return Rank(rank, size, int(environment.get("LOCAL_RANK") or rank % local_size), local_size)


def drop_empty(environment: MutableMapping[str, str] = os.environ) -> None:
    """Unset empty variables of launchers, which Lightning would parse as numbers when it is imported."""
    for name in (*RANK_VARIABLES, *ADDRESS_VARIABLES, "SLURM_PROCID", "SLURM_LOCALID"):
        if not environment.get(name, "-").strip():
            del environment[name]


def require_whole(environment: MutableMapping[str, str] = os.environ) -> None:
    """Check the launcher's variables; empty ones count as unset.

    Raises:
        ValueError: some are missing or contradict each other.
    """
    drop_empty(environment)
    given = [name for name in RANK_VARIABLES if name in environment]
    numbers = {name: _whole_number(environment, name) for name in given}
    if not given or (numbers.get("WORLD_SIZE") == 1 and numbers.get("RANK", 0) == 0):
        return  # a single process
    missing = [name for name in (*RANK_VARIABLES, *ADDRESS_VARIABLES) if name not in environment]
    if missing:
        known = ", ".join(f"{name}={environment[name]}" for name in given)
        raise ValueError(f"{known}: set, but {', '.join(missing)} missing; {remedy(environment)}")
    _require_consistent(numbers, _whole_number(environment, "MASTER_PORT"), environment)


def _whole_number(environment: Mapping[str, str], name: str) -> int:
    if not environment[name].strip().isdecimal():
        raise ValueError(f"{name}={environment[name]}: must be a whole number; {remedy(environment)}")
    return int(environment[name])


def _require_consistent(place: dict[str, int], port: int, environment: Mapping[str, str]) -> None:
    rank, size, local_rank, local_size = (place[name] for name in RANK_VARIABLES)
    for holds, what in (
        (rank < size, f"RANK={rank}: must be below WORLD_SIZE={size}"),
        (local_rank < local_size, f"LOCAL_RANK={local_rank}: must be below LOCAL_WORLD_SIZE={local_size}"),
        (
            local_size and size % local_size == 0,
            f"WORLD_SIZE={size}: must be a multiple of LOCAL_WORLD_SIZE={local_size}",
        ),
        (0 < port < 65536, f"MASTER_PORT={port}: must be from 1 to 65535"),
    ):
        if not holds:
            raise ValueError(f"{what}; {remedy(environment)}")


def remedy(environment: Mapping[str, str] = os.environ) -> str:
    """Return the remedy for inconsistent variables."""
    names = " ".join(name for name in (*RANK_VARIABLES, *ADDRESS_VARIABLES) if name in environment)
    return f"if no launcher started this process: unset {names}; else use torchrun or srun, which set all of them"


def started() -> Rank | None:
    """Check the environment at the start of the process, and return its rank; tasks of `srun` count as ranks.

    Raises:
        ValueError: the launcher's variables are incomplete or contradict each other.
    """
    drop_empty()
    slurm.adopt()
    require_whole()
    return current()
