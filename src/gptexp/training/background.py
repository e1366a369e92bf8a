"""Checkpoints that are written while training continues, of whole and of sharded models."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from gptexp.machine.sharding import is_sharded
from gptexp.runs.checkpoint import Checkpoint

SHARDS = ".shards-"  # begins the name of a folder that the ranks write before it is gathered into one file


class Background:
    """Calls one function at a time in a thread; an error is raised by the next call of any method."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def start(self, function: Callable[[], None]) -> None:
        """Wait for the former function, and start this one."""
        self.finish()
        self._pending = self._pool.submit(function)

    def check(self) -> None:
        """Raise the error of the function if it has failed."""
        if self._pending is not None and self._pending.done():
            self.finish()

    def finish(self) -> None:
        """Wait for the function."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def local_copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return copies on the CPU that training does not change; of a sharded tensor, this rank's shard."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def gathered(state: Checkpoint, folder: Path, group: distributed.ProcessGroup | None) -> Checkpoint | None:
    """Return a checkpoint of shards with whole tensors on rank 0, and None on the others. Nothing is sent.

    Every rank writes its shards into the folder, which all ranks must see, and rank 0 reads them.
    """
    parts = {"model": state.model, "optimizer": state.optimizer}
    if not any(map(is_sharded, state.model.values())):
        return state
    from torch.distributed.checkpoint import state_dict_loader, state_dict_saver

    place = folder / f"{SHARDS}{state.step}"
    state_dict_saver.save(parts, checkpoint_id=place, process_group=group)
    if distributed.get_rank():
        return None
    whole = _empty(parts)
    state_dict_loader.load(whole, checkpoint_id=place, no_dist=True)
    shutil.rmtree(place)
    return replace(state, **whole)


def _empty(state: Any) -> Any:
    """Return a nested state with whole tensors in place of shards, without their values."""
    if isinstance(state, dict):
        return {name: _empty(value) for name, value in state.items()}
    return torch.empty(state.shape, dtype=state.dtype) if isinstance(state, Tensor) else state
