"""Windows with masked tokens, for masked language modelling (BERT, arXiv 1810.04805, section 3.1).

The same fraction of each window is selected, as in BERT's code, so that the mean over a batch does not depend on how it
is divided into micro-batches. Of the selected tokens 80 % become the mask, 10 % a random token, and 10 % are
unchanged. The selection follows from (seed, number of the window in the run) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gptexp.data.batches import Batch, BatchPlan, MicroBatches, Order, ScoredBatches, Tokens
from gptexp.data.shards import TokenStore
from gptexp.models.losses import IGNORED

MASKED, REPLACED = 0.8, 0.1  # fractions of the selected tokens; the others stay unchanged

_DOMAIN, _VAL_DOMAIN = 0x6D61736B, 0x6D766C64  # distinguish these draws from others of (seed, number)


@dataclass(frozen=True, slots=True)
class Masking:
    """How tokens are masked. The tokenizer's tokens are 0 … vocab_size - 1, and the mask token is vocab_size.

    fraction: of the tokens of a window that are selected. eot: <|endoftext|>, which is never selected.
    """

    fraction: float
    vocab_size: int
    eot: int | None

    def mask(self, tokens: np.ndarray, key: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Return the inputs (T,) and the targets (T,), which are IGNORED except for the selected tokens."""
        draws = np.random.default_rng(np.random.SeedSequence(key))
        candidates = np.arange(len(tokens)) if self.eot is None else np.flatnonzero(tokens != self.eot)
        count = max(1, round(self.fraction * len(tokens)))
        order = np.argsort(draws.random(len(candidates)), kind="stable")
        selected = candidates[order[:count]]
        kind = draws.random(len(selected))
        inputs, targets = tokens.copy(), np.full_like(tokens, IGNORED)
        targets[selected] = tokens[selected]
        inputs[selected[kind < MASKED]] = self.vocab_size
        replaced = selected[(kind >= MASKED) & (kind < MASKED + REPLACED)]
        inputs[replaced] = draws.integers(self.vocab_size, size=len(replaced))
        return inputs, targets


class MaskedTrain(MicroBatches):
    """Training batches: tokens and targets (B, T), lengths (B,). The windows are those of language modelling."""

    def __init__(self, store: Tokens, order: Order, plan: BatchPlan, masking: Masking, **which: int) -> None:
        super().__init__(plan, **which)
        self.store, self.order, self.masking = store, order, masking

    def take(self, first: int) -> Batch:
        starts = self.order.starts(first, self.plan.micro_batch)
        windows = self.store.windows(starts, self.order.block_size)
        keys = [(self.order.seed, first + row, _DOMAIN) for row in range(len(windows))]
        return _batch(list(windows), keys, self.masking)


class MaskedVal(ScoredBatches):
    """The validation text in windows that do not overlap; the last may be short. All runs and seeds mask it alike."""

    def __init__(self, store: TokenStore, masking: Masking, *, block_size: int, batch: int, **ranks: int) -> None:
        super().__init__(-(-len(store) // block_size), batch=batch, **ranks)
        self.store, self.masking, self.block_size = store, masking, block_size

    def take(self, first: int) -> Batch:
        starts = range(first * self.block_size, len(self.store), self.block_size)[: self.batch]
        windows = [self.store.read(start, start + self.block_size).astype(np.int64) for start in starts]
        if not windows:  # a batch that is not scored
            return torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[IGNORED]]), torch.ones(1, dtype=torch.int64)
        return _batch(windows, [(first + row, _VAL_DOMAIN) for row in range(len(windows))], self.masking)


def _batch(windows: list[np.ndarray], keys: Sequence[tuple[int, ...]], masking: Masking) -> Batch:
    lengths = [len(window) for window in windows]
    tokens = np.zeros((len(windows), max(lengths)), dtype=np.int64)
    targets = np.full_like(tokens, IGNORED)
    for row, (window, key) in enumerate(zip(windows, keys, strict=True)):
        tokens[row, : len(window)], targets[row, : len(window)] = masking.mask(window, key)
    return torch.from_numpy(tokens), torch.from_numpy(targets), torch.tensor(lengths)
