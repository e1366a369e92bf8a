"""Batches: which windows a device gets in a step, and in how many forward passes."""

from __future__ import annotations

import multiprocessing.queues
import os
import signal
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from gptexp.config import Config, Recompute
from gptexp.data.order import val_windows
from gptexp.data.shards import TokenStore
from gptexp.machine import slurm
from gptexp.models.losses import IGNORED
from gptexp.util.signals import ENDING

# Tensors of int64: the tokens (B, T) and those that the objective needs, here the targets (B, T).
Batch = tuple[torch.Tensor, ...]


class Tokens(Protocol):
    """Training tokens. windows: as `TokenStore.windows`."""

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray: ...


class Order(Protocol):
    """The starts of the training windows by sample. starts: as `WindowOrder.starts`."""

    block_size: int
    seed: int

    def starts(self, first: int, count: int) -> np.ndarray: ...


@dataclass(frozen=True)
class BatchPlan:
    """How the windows of a step are divided: windows = micro_batch × accumulate × world_size."""

    windows: int
    micro_batch: int
    accumulate: int
    world_size: int

    def first_sample(self, step: int, micro: int, rank: int) -> int:
        """Return the number in the run of a micro-batch's first window; step: optimizer steps before it."""
        nth = micro * self.world_size + rank  # the micro-batches of a step are dealt to the ranks in turn
        return step * self.windows + nth * self.micro_batch


def plan_batches(config: Config, *, vocab_size: int, world_size: int, memory: int) -> BatchPlan:
    """Divide the global batch among devices and micro-batches.

    memory: bytes that the activations of a forward and backward pass may take on one device; an explicit
    `data.micro_batch_size` overrides it.

    Raises:
        ValueError: the number of devices, times an explicit micro-batch size, does not divide the global batch.
    """
    config.require_divisible_batch(world_size)
    windows = config.windows_per_step
    share = windows // world_size
    micro = config.data.micro_batch_size or largest_divisor(share, _windows_that_fit(config, vocab_size, memory))
    return BatchPlan(windows, micro, share // micro, world_size)


def _windows_that_fit(config: Config, vocab_size: int, memory: int) -> int:
    """A token needs memory for its logits (four copies in the loss and its gradient) and for the activations.

    The activations of a layer take 34·s·b·h bytes in 16 bits (arXiv 2205.05198, eq. 1), so 68 per channel in 32 bits.
    If blocks are recomputed, there are those of one layer at a time, and the input of each other layer.
    """
    model = config.model
    layers, width = getattr(model, "n_layer", 1), getattr(model, "n_embd", 64)
    whole = 1 if config.trainer.recompute is Recompute.blocks else layers
    bytes_per_token = 16 * vocab_size + (68 * whole + 4 * (layers - whole)) * width
    return max(1, memory // (bytes_per_token * model.block_size))


def largest_divisor(number: int, cap: int) -> int:
    """Return the largest divisor of `number` that is at most `cap`, which is at least 1."""
    return next(d for d in range(min(number, cap), 0, -1) if number % d == 0)


class MicroBatches(ABC, Dataset[Batch]):
    """The micro-batches of one rank, from `first_step` to `last_step`, in order.

    Item j belongs to step first_step + j // accumulate. Its samples follow from (seed, step) alone, so a checkpoint
    needs no state of the loader.
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
        """Return the micro-batch that begins with sample `first` of the run."""


class TrainBatches(MicroBatches):
    """Windows of a text, and as targets the same windows one token further."""

    def __init__(self, store: Tokens, order: Order, plan: BatchPlan, **which: int) -> None:
        super().__init__(plan, **which)
        self.store, self.order = store, order

    def take(self, first: int) -> Batch:
        starts = self.order.starts(first, self.plan.micro_batch)
        windows = torch.from_numpy(self.store.windows(starts, self.order.block_size + 1))
        tokens, targets = windows[:, :-1], windows[:, 1:]
        return tokens.contiguous(), targets.contiguous()  # pinning would copy views


class ScoredBatches(ABC, Dataset[Batch]):
    """The validation batches of one rank. They are dealt to the ranks in turn.

    Each rank has the same number of them, because sharded models compute together; a rank without a batch gets one
    that is not scored.
    """

    def __init__(self, n_samples: int, *, batch: int, rank: int = 0, world_size: int = 1) -> None:
        self.n_samples, self.batch, self.rank, self.world_size = n_samples, batch, rank, world_size

    def __len__(self) -> int:
        return -(-self.n_samples // (self.batch * self.world_size))

    def __getitem__(self, j: int) -> Batch:
        return self.take((j * self.world_size + self.rank) * self.batch)

    @abstractmethod
    def take(self, first: int) -> Batch:
        """Return the batch that begins with sample `first`, which may be beyond the last sample."""


class ValBatches(ScoredBatches):
    """The validation text in windows that do not overlap; a target that is not scored is IGNORED."""

    def __init__(self, store: TokenStore, block_size: int, *, eot: int | None, batch: int, **ranks: int) -> None:
        self.store, self.block_size, self.eot = store, block_size, eot
        self.starts = val_windows(len(store), block_size)
        super().__init__(len(self.starts), batch=batch, **ranks)

    def take(self, first: int) -> Batch:
        starts = self.starts[first : first + self.batch]
        width = min(self.block_size, max(1, len(self.store) - 1))  # no wider than the text
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
    """Return how many tokens and UTF-8 bytes validation scores: all except the first token and <|endoftext|>."""
    tokens = n_bytes = 0
    for start in range(1, len(store), chunk):
        piece = store.read(start, min(start + chunk, len(store)))
        tokens += int((piece != eot).sum()) if eot is not None else len(piece)
        n_bytes += int(token_bytes[piece].sum())
    return tokens, n_bytes


def loader(dataset: Dataset[Batch], *, workers: int, pin: bool) -> DataLoader[Batch]:
    """Return a loader of a data set whose items are batches, in their order."""
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
    """Ignore signals and end on a batch that can't be transferred.

    Ctrl-C reaches workers too, but the step in progress still needs their batches. If shared memory is full, Python
    only prints a traceback and the main process waits forever; a worker that ends is noticed.
    """
    for signum in (*ENDING, *slurm.PREEMPTION):
        signal.signal(signum, signal.SIG_IGN)
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]


def _end(error: Exception, batch: object) -> None:
    os._exit(1)
