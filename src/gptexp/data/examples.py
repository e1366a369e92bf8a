"""Tokenised texts with labels, and the batches made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from gptexp.data.batches import Batch, BatchPlan, MicroBatches
from gptexp.data.corpora.labelled import Label
from gptexp.data.order import ExampleOrder
from gptexp.data.shards import TokenStore
from gptexp.models.losses import IGNORED
from gptexp.tokenizers import Tokenizer


class Examples:
    """Tokenised texts and the numbers of their labels."""

    def __init__(self, tokens: TokenStore, lengths: TokenStore, labels: TokenStore) -> None:
        self.tokens = tokens
        self.lengths = lengths.read(0, len(lengths)).astype(np.int64)  # (n,), of the whole texts
        self.labels = labels.read(0, len(labels)).astype(np.int64)  # (n,)
        self._ends = np.cumsum(self.lengths)

    def __len__(self) -> int:
        return len(self.labels)

    def text(self, index: int, block_size: int) -> np.ndarray:
        """The last block_size tokens of a text: where it is cut its end is kept, which the label is read from.

        (Of reviews, the end alone serves better than the beginning alone: arXiv 1905.05583, table 2.)
        """
        end = int(self._ends[index])
        return self.tokens.read(end - min(int(self.lengths[index]), block_size), end)

    def seen_tokens(self, block_size: int) -> int:
        """Tokens of all texts, as far as they fit into block_size."""
        return int(np.minimum(self.lengths, block_size).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledData:
    """Examples of one source by one tokenizer.

    labels: their names, sorted; an example holds a place in this list. text_sha256: of the validation
    part, texts and labels, so it tells what was scored.
    """

    tokenizer: Tokenizer
    labels: list[Label]
    train: Examples
    val: Examples
    fingerprint: str
    text_sha256: str
    train_bytes: int
    val_bytes: int
    folder: Path

    @property
    def train_tokens(self) -> int:
        return len(self.train.tokens)

    @property
    def facts(self) -> dict[str, Any]:
        """What the objective must know of its data besides the tokenizer; checkpoints carry it."""
        counts = np.bincount(self.train.labels, minlength=len(self.labels))
        return {"labels": list(self.labels), "counts": counts.tolist()}


def pad(texts: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts of at least one token each -> tokens (B, T), padded on the right to the longest, and lengths (B,)."""
    lengths = [len(text) for text in texts]
    tokens = np.zeros((len(texts), max(lengths)), dtype=np.int64)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = text
    return torch.from_numpy(tokens), torch.tensor(lengths)


class TrainTexts(MicroBatches):
    """Tokens (B, T), lengths and labels (B,)."""

    def __init__(
        self, examples: Examples, order: ExampleOrder, plan: BatchPlan, *, block_size: int, **which: int
    ) -> None:
        super().__init__(plan, **which)
        self.examples, self.order, self.block_size = examples, order, block_size

    def take(self, first: int) -> Batch:
        return _batch(self.examples, self.order.indices(first, self.plan.micro_batch), self.block_size)


class ValTexts(Dataset[Batch]):
    """All validation texts, in batches that ranks take in turns; a rank without one gets a text that isn't scored."""

    def __init__(self, examples: Examples, *, block_size: int, batch: int, rank: int = 0, world_size: int = 1) -> None:
        self.examples, self.block_size, self.batch = examples, block_size, batch
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return -(-len(self.examples) // (self.batch * self.world_size))

    def __getitem__(self, j: int) -> Batch:
        first = (j * self.world_size + self.rank) * self.batch
        indices = np.arange(first, min(first + self.batch, len(self.examples)))
        if not len(indices):
            return torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64), torch.tensor([IGNORED])
        return _batch(self.examples, indices, self.block_size)


def _batch(examples: Examples, indices: np.ndarray, block_size: int) -> Batch:
    tokens, lengths = pad([examples.text(int(index), block_size) for index in indices])
    return tokens, lengths, torch.from_numpy(examples.labels[indices])
