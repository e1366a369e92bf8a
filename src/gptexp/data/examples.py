"""Tokenized texts with labels, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gptexp.data.batches import Batch, BatchPlan, MicroBatches, ScoredBatches
from gptexp.data.corpora.labelled import Label
from gptexp.data.order import ExampleOrder
from gptexp.data.prepared import LabelFacts
from gptexp.data.shards import TokenStore
from gptexp.models.losses import IGNORED
from gptexp.tokenizers import Tokenizer


class Examples:
    """Tokenized texts and the classes of their labels."""

    def __init__(self, tokens: TokenStore, lengths: TokenStore, labels: TokenStore) -> None:
        self.tokens = tokens
        self.lengths = lengths.read(0, len(lengths)).astype(np.int64)  # (n,), tokens of each text
        self.labels = labels.read(0, len(labels)).astype(np.int64)  # (n,)
        self._ends = np.cumsum(self.lengths)

    def __len__(self) -> int:
        return len(self.labels)

    def text(self, index: int, block_size: int) -> np.ndarray:
        """The last block_size tokens of a text, (n,): the label is predicted from the end.

        For reviews, the end alone is better than the beginning alone (arXiv 1905.05583, table 2).
        """
        end = int(self._ends[index])
        return self.tokens.read(end - min(int(self.lengths[index]), block_size), end)

    def seen_tokens(self, block_size: int) -> int:
        """Tokens of all texts after each is cut to block_size."""
        return int(np.minimum(self.lengths, block_size).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledData:
    """Labelled texts of one source by one tokenizer: a `PreparedData`.

    labels: sorted; the class of an example is a position in this list. text_sha256: of the validation part, texts and
    labels.
    """

    tokenizer: Tokenizer
    labels: list[Label]
    train: Examples
    val: Examples
    fingerprint: str
    text_sha256: str
    train_text_bytes: int
    val_text_bytes: int
    folder: Path

    @property
    def bytes_per_token(self) -> float:
        return self.train_text_bytes / len(self.train.tokens)

    @property
    def facts(self) -> LabelFacts:
        counts = np.bincount(self.train.labels, minlength=len(self.labels))
        return LabelFacts(
            fingerprint=self.fingerprint,
            text_sha256=self.text_sha256,
            labels=list(self.labels),
            counts=counts.tolist(),
        )


def pad(texts: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad texts, each of at least one token, on the right to the longest: tokens (B, T) and lengths (B,)."""
    lengths = [len(text) for text in texts]
    tokens = np.zeros((len(texts), max(lengths)), dtype=np.int64)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = text
    return torch.from_numpy(tokens), torch.tensor(lengths)


class TrainTexts(MicroBatches):
    """Training batches: tokens (B, T), lengths (B,) and labels (B,)."""

    def __init__(
        self, examples: Examples, order: ExampleOrder, plan: BatchPlan, *, block_size: int, **which: int
    ) -> None:
        super().__init__(plan, **which)
        self.examples, self.order, self.block_size = examples, order, block_size

    def take(self, first: int) -> Batch:
        return _batch(self.examples, self.order.indices(first, self.plan.micro_batch), self.block_size)


class ValTexts(ScoredBatches):
    """All validation texts: tokens (B, T), lengths (B,) and labels (B,)."""

    def __init__(self, examples: Examples, *, block_size: int, batch: int, **ranks: int) -> None:
        super().__init__(len(examples), batch=batch, **ranks)
        self.examples, self.block_size = examples, block_size

    def take(self, first: int) -> Batch:
        indices = np.arange(first, min(first + self.batch, len(self.examples)))
        if not len(indices):
            return torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64), torch.tensor([IGNORED])
        return _batch(self.examples, indices, self.block_size)


def _batch(examples: Examples, indices: np.ndarray, block_size: int) -> Batch:
    tokens, lengths = pad([examples.text(int(index), block_size) for index in indices])
    return tokens, lengths, torch.from_numpy(examples.labels[indices])
