"""Masked tokens from the tokens on both sides: BERT's masked language modelling (arXiv 1810.04805, section 3.1).

The loss is not a likelihood of the text, because the model also sees the tokens that follow. Therefore its metrics have
separate names, and it is never converted to bits per byte.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gptexp.config import Config
from gptexp.config.model import ModelConfig
from gptexp.data.batches import Batch, BatchPlan
from gptexp.data.masking import MaskedTrain, MaskedVal, Masking
from gptexp.data.mixture import Texts
from gptexp.data.prepare import TextData
from gptexp.models.build import plain_model
from gptexp.models.losses import IGNORED, cross_entropy
from gptexp.objectives.base import Objective
from gptexp.objectives.base import Score as ScoreBase
from gptexp.objectives.lm import describe_windows


@dataclass(frozen=True)
class Score(ScoreBase):
    """How well masked tokens are predicted.

    nats: sum over the masked tokens. found: how many the likeliest token is right for. tokens: number of masked tokens.
    """

    nats: float
    found: int
    tokens: int

    def __add__(self, other: Score) -> Score:
        return Score(self.nats + other.nats, self.found + other.found, self.tokens + other.tokens)

    def sums(self) -> list[float]:
        return [float(self.nats), float(self.found), float(self.tokens)]

    def metrics(self) -> dict[str, float]:
        if not self.tokens:
            return {"val/mlm_loss": math.nan, "val/mlm_accuracy": math.nan}
        return {"val/mlm_loss": self.nats / self.tokens, "val/mlm_accuracy": self.found / self.tokens}

    def record(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "found": self.found, "mlm_nats": self.nats}


class MaskedLanguageModelling(Objective[TextData]):
    """Batches: tokens (B, T) of which some are masked, targets (B, T), lengths (B,).

    The mask token is an additional token, the last row of wte; it represents no text.
    """

    why_no_text = "it predicts masked tokens from both sides, so it can neither generate text nor give its likelihood"
    parts = ("tokens", "targets", "lengths")
    headline = ("val/mlm_loss", "val/mlm_accuracy")
    next_step = "gptexp train init_from=RUN objective=classification data=labelled data.path=FILE.csv"

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size + 1

    @property
    def masking(self) -> Masking:
        return Masking(self.config.mask_fraction, self.tokenizer.vocab_size, self.tokenizer.eot)

    def make_model(self, config: ModelConfig) -> nn.Module:
        return plain_model(config, self.vocab_size, causal=False)

    def train_batches(
        self,
        data: Texts,
        config: Config,
        plan: BatchPlan,
        *,
        rank: int,
        first_step: int,
        last_step: int,
    ) -> MaskedTrain:
        order = data.order(config.model.block_size, config.seed)
        return MaskedTrain(data.train, order, plan, self.masking, rank=rank, first_step=first_step, last_step=last_step)

    def val_batches(self, data: TextData, config: Config, plan: BatchPlan, *, rank: int) -> MaskedVal:
        return MaskedVal(
            data.val,
            self.masking,
            block_size=config.model.block_size,
            batch=plan.micro_batch,
            rank=rank,
            world_size=plan.world_size,
        )

    def describe(self, data: TextData, config: Config, plan: BatchPlan, steps: int) -> tuple[str, str]:
        masked = f"{self.config.mask_fraction:.0%} of {len(data.val):,} tokens"
        return describe_windows(data, config, plan, steps), masked

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        tokens, targets, lengths = batch
        return cross_entropy(model(tokens, lengths=lengths), targets)

    def measure(self, model: nn.Module, batch: Batch) -> Score:
        """Score the masked tokens."""
        tokens, targets, lengths = batch
        logits = model(tokens, lengths=lengths)  # (B, T, V)
        nats = float(cross_entropy(logits, targets, reduction="sum"))
        masked = targets != IGNORED
        found = int((logits.argmax(-1) == targets)[masked].sum())
        return Score(nats, found, int(masked.sum()))

    def score(self, sums: list[float]) -> Score:
        nats, found, tokens = sums
        return Score(nats, round(found), round(tokens))
