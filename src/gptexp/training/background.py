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
    tensors = {f"model/{name}": tensor for name, tensor in state.model.items()}
    tensors |= {_key(name, key): value for name, key, value in _entries(state.optimizer) if isinstance(value, Tensor)}
    if not any(map(is_sharded, tensors.values())):
        return state
    from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    place = folder / f"{SHARDS}{state.step}"
    state_dict_saver.save(tensors, checkpoint_id=place, process_group=group)
    if distributed.get_rank():
        return None
    reader = FileSystemReader(place)
    found: dict[str, Any] = reader.read_metadata().state_dict_metadata
    whole = {name: torch.empty(part.size, dtype=part.properties.dtype) for name, part in found.items()}
    state_dict_loader.load(whole, storage_reader=reader, no_dist=True)
    shutil.rmtree(place)
    optimizer: dict[str, dict[str, Any]] = {name: {} for name in state.optimizer}
    for name, key, value in _entries(state.optimizer):
        optimizer[name][key] = whole.get(_key(name, key), value)
    return replace(state, model={name: whole[f"model/{name}"] for name in state.model}, optimizer=optimizer)


def _entries(optimizer: dict[str, Any]) -> list[tuple[str, str, Any]]:
    return [(name, key, value) for name, state in optimizer.items() for key, value in state.items()]


def _key(name: str, key: str) -> str:
    return f"optimizer/{name}/{key}"
