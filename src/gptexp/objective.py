"""From logits to nats: the next-token objective, for training and for scoring."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

IGNORED = -100  # a target that isn't scored: padding, and <|endoftext|> in validation


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Nats of the targets (B, T) under the logits (B, T, V); ignored targets don't count."""
    return F.cross_entropy(logits.flatten(0, 1).float() if logits.dtype != torch.float64 else logits.flatten(0, 1),
                           targets.flatten(), ignore_index=IGNORED, reduction=reduction)  # fmt: skip


@dataclass(frozen=True)
class Score:
    """How well a model predicts a text; law 3: the text is the same for every tokenizer and block size.

    nats: sum over the scored tokens. tokens: how many. bytes: UTF-8 bytes that these tokens stand for.
    """

    nats: float
    tokens: int
    bytes: int

    @property
    def loss(self) -> float:
        """Nats a token: comparable between runs of one tokenizer only."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(loss); inf where that overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bpb(self) -> float:
        """Bits a byte of the raw text: comparable across tokenizers."""
        return self.nats / math.log(2) / self.bytes

    def metrics(self) -> dict[str, float]:
        """By the names that every log and table uses."""
        return {"val/loss": self.loss, "val/bpb": self.bpb, "val/perplexity": self.perplexity}
