"""Which windows a device sees in a step, and in how many forward passes: law 1 made into loaders."""

from __future__ import annotations

import multiprocessing.queues
import os
import signal
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from gptexp.config import Config
from gptexp.data.order import WindowOrder, val_windows
from gptexp.data.shards import TokenStore
from gptexp.machine import slurm
from gptexp.models.losses import IGNORED
from gptexp.util.signals import ENDING

# Tensors of int64, the tokens (B, T) first; what follows is the objective's. Here the targets (B, T).
Batch = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class BatchPlan:
    """How one step's windows are shared out: windows = micro_batch × accumulate × world_size."""

    windows: int
    micro_batch: int
    accumulate: int
    world_size: int

    def first_sample(self, step: int, micro: int, rank: int) -> int:
        """The run's number of a micro-batch's first window; step: optimizer steps taken before it."""
        nth = micro * self.world_size + rank  # micro-batches of a step are dealt to the ranks in turn
        return step * self.windows + nth * self.micro_batch


def plan_batches(config: Config, *, vocab_size: int, world_size: int, memory: int) -> BatchPlan:
    """Share the global batch over devices and micro-batches.

    memory: bytes of activations that a forward and backward pass may take on one device; an explicit
    `data.micro_batch_size` overrides it.

    Raises:
        ValueError: the devices, or an explicit micro batch on them, don't divide the global batch.
    """
    config.require_divisible_batch(world_size)
    windows = config.windows_per_step
    share = windows // world_size
    micro = config.data.micro_batch_size or largest_divisor(share, _windows_that_fit(config, vocab_size, memory))
    return BatchPlan(windows, micro, share // micro, world_size)


def _windows_that_fit(config: Config, vocab_size: int, memory: int) -> int:
    """A token costs its logits (four copies through softmax and back) and 34 floats a layer and channel.

    34: activations of a block in bytes are 34·s·b·h in 16 bits (arXiv 2205.05198, eq. 1), so 68 in 32.
    """
    model = config.model
    layers, width = getattr(model, "n_layer", 1), getattr(model, "n_embd", 64)
    bytes_per_token = 16 * vocab_size + 68 * layers * width
    return max(1, memory // (bytes_per_token * model.block_size))


def largest_divisor(number: int, cap: int) -> int:
    """The largest number up to `cap`, which is at least 1, that divides `number`."""
    return next(d for d in range(min(number, cap), 0, -1) if number % d == 0)


class MicroBatches(ABC, Dataset[Batch]):
    """The micro-batches of one rank, from `first_step` to the end of the run, in order.

    Item j belongs to step first_step + j // accumulate; which samples it holds follows from
    (seed, step) alone, so there is no loader state to save.
    """

    def __init__(self, plan: BatchPlan, *, rank: int, first_step: int, last_step: int) -> None:
        self.plan, self.rank = plan, rank
        self.first_step, self.last_step = first_step, last_step

    def __len__(self) -> int:
        return (self.last_step - self.first_step) * self.plan.accumulate

    def __getitem__(self, j: int) -> Batch:
        step, micro = divmod(j, self.plan.accumulate)
        return self.take(self.plan.first_sample(self.first_step + step, micro, self.rank))

    @abstractmethod
    def take(self, first: int) -> Batch:
        """The micro-batch that begins with the run's sample `first`."""


class TrainBatches(MicroBatches):
    """Windows of a text, and the same one token further."""

    def __init__(self, store: TokenStore, order: WindowOrder, plan: BatchPlan, **which: int) -> None:
        super().__init__(plan, **which)
        self.store, self.order = store, order

    def take(self, first: int) -> Batch:
        starts = self.order.starts(first, self.plan.micro_batch)
        windows = torch.from_numpy(self.store.windows(starts, self.order.block_size + 1))
        tokens, targets = windows[:, :-1], windows[:, 1:]
        return tokens.contiguous(), targets.contiguous()  # views would be copied out of pinned memory first


class ValBatches(Dataset[Batch]):
    """The validation text in windows that don't overlap; what isn't scored has the target IGNORED.

    Ranks take turns at whole batches, and each has the same number of them (a rank without one scores
    nothing), because sharded models compute together.
    """

    def __init__(
        self, store: TokenStore, block_size: int, *, eot: int | None, batch: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.store, self.block_size, self.eot, self.batch = store, block_size, eot, batch
        self.rank, self.world_size = rank, world_size
        self.starts = val_windows(len(store), block_size)

    def __len__(self) -> int:
        return -(-len(self.starts) // (self.batch * self.world_size))

    def __getitem__(self, j: int) -> Batch:
        first = (j * self.world_size + self.rank) * self.batch
        starts = self.starts[first : first + self.batch]
        width = min(self.block_size, max(1, len(self.store) - 1))  # block_size may be any number, the text is at hand
        tokens = np.zeros((max(1, len(starts)), width), dtype=np.int64)
        targets = np.full_like(tokens, IGNORED)
        for row, start in enumerate(starts):
            window = self.store.read(int(start), min(int(start) + self.block_size + 1, len(self.store))).astype(
                np.int64
            )
            tokens[row, : len(window) - 1] = window[:-1]
            targets[row, : len(window) - 1] = window[1:]
        if self.eot is not None:
            targets[targets == self.eot] = IGNORED
        return torch.from_numpy(tokens), torch.from_numpy(targets)


def scored(store: TokenStore, token_bytes: np.ndarray, eot: int | None, chunk: int = 2**20) -> tuple[int, int]:
    """Tokens and UTF-8 bytes that validation scores: all but the first token and <|endoftext|>."""
    tokens = n_bytes = 0
    for start in range(1, len(store), chunk):
        piece = store.read(start, min(start + chunk, len(store)))
        tokens += int((piece != eot).sum()) if eot is not None else len(piece)
        n_bytes += int(token_bytes[piece].sum())
    return tokens, n_bytes


def loader(dataset: Dataset[Batch], *, workers: int, pin: bool) -> DataLoader:
    """A loader that adds nothing: the data set's items are batches, in order."""
    return DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
        shuffle=False,
        worker_init_fn=_begin_worker,
    )


def _begin_worker(worker: int) -> None:
    """A Ctrl-C reaches workers too, but the step that it lets end still needs their batches.

    A batch that can't be handed over (shared memory is full) ends the worker, which the main process notices;
    Python would only print a traceback, and the main process would wait for that batch for ever.
    """
    for signum in (*ENDING, *slurm.PREEMPTION):
        signal.signal(signum, signal.SIG_IGN)
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]


def _end(error: Exception, batch: object) -> None:
    os._exit(1)
