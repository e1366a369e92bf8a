"""Windows with hidden tokens, for masked language modelling (BERT, arXiv 1810.04805, section 3.1).

Of each window the same share of tokens is chosen, as in BERT's own program, so that the mean over a batch doesn't
depend on how it is cut into micro-batches. Of the chosen ones 80 % are shown as the mask, 10 % as a random
token, 10 % as they are. What is chosen and shown follows from (seed, number of the window in the run) alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from gptexp.data.batches import Batch, BatchPlan, MicroBatches
from gptexp.data.order import WindowOrder
from gptexp.data.shards import TokenStore
from gptexp.models.losses import IGNORED

HIDDEN, SWAPPED = 0.8, 0.1  # shares of the chosen tokens; the rest stays

_DOMAIN, _VAL_DOMAIN = 0x6D61736B, 0x6D766C64  # keep these draws apart from others made of (seed, number)


@dataclass(frozen=True, slots=True)
class Masking:
    """How tokens are hidden. The tokenizer's tokens are 0 … vocab_size - 1, and the mask is vocab_size itself."""

    fraction: float
    vocab_size: int
    eot: int | None  # is context only: never to be found again

    def hide(self, tokens: np.ndarray, key: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (T,) as they are shown, and targets (T,): IGNORED but for the chosen ones. A pure function."""
        draws = np.random.default_rng(np.random.SeedSequence(key))
        open_to_choice = np.arange(len(tokens)) if self.eot is None else np.flatnonzero(tokens != self.eot)
        count = max(1, round(self.fraction * len(tokens)))
        order = np.argsort(draws.random(len(open_to_choice)), kind="stable")
        chosen = open_to_choice[order[:count]]
        kind = draws.random(len(chosen))
        shown, targets = tokens.copy(), np.full_like(tokens, IGNORED)
        targets[chosen] = tokens[chosen]
        shown[chosen[kind < HIDDEN]] = self.vocab_size
        swapped = chosen[(kind >= HIDDEN) & (kind < HIDDEN + SWAPPED)]
        shown[swapped] = draws.integers(self.vocab_size, size=len(swapped))
        return shown, targets


class MaskedTrain(MicroBatches):
    """Tokens and targets (B, T), lengths (B,). The windows are a language model's."""

    def __init__(self, store: TokenStore, order: WindowOrder, plan: BatchPlan, masking: Masking, **which: int) -> None:
        super().__init__(plan, **which)
        self.store, self.order, self.masking = store, order, masking

    def take(self, first: int) -> Batch:
        starts = self.order.starts(first, self.plan.micro_batch)
        windows = self.store.windows(starts, self.order.block_size)
        return _batch(list(windows), [(self.order.seed, first + row, _DOMAIN) for row in range(len(windows))], self)


class MaskedVal(Dataset[Batch]):
    """The validation text in windows that don't overlap, the last may be short; hidden alike for every run and seed."""

    def __init__(
        self,
        store: TokenStore,
        masking: Masking,
        *,
        block_size: int,
        batch: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.store, self.masking, self.block_size, self.batch = store, masking, block_size, batch
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        windows = -(-len(self.store) // self.block_size)
        return -(-windows // (self.batch * self.world_size))

    def __getitem__(self, j: int) -> Batch:
        first = (j * self.world_size + self.rank) * self.batch
        starts = range(first * self.block_size, len(self.store), self.block_size)[: self.batch]
        windows = [self.store.read(start, start + self.block_size).astype(np.int64) for start in starts]
        if not windows:  # this rank's turn comes no more: nothing of it is scored
            return torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[IGNORED]]), torch.ones(1, dtype=torch.int64)
        return _batch(windows, [(first + row, _VAL_DOMAIN) for row in range(len(windows))], self)


def _batch(windows: list[np.ndarray], keys: list[tuple[int, ...]], of: MaskedTrain | MaskedVal) -> Batch:
    lengths = [len(window) for window in windows]
    tokens = np.zeros((len(windows), max(lengths)), dtype=np.int64)
    targets = np.full_like(tokens, IGNORED)
    for row, (window, key) in enumerate(zip(windows, keys, strict=True)):
        tokens[row, : len(window)], targets[row, : len(window)] = of.masking.hide(window, key)
    return torch.from_numpy(tokens), torch.from_numpy(targets), torch.tensor(lengths)
