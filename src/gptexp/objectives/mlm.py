"""Hidden tokens from what stands on both sides: BERT's masked language modelling (arXiv 1810.04805, section 3.1).

The loss is of the hidden tokens, given others that a reader from left to right hasn't seen yet. It is no
likelihood of the text, so it has names of its own and is never turned into bits a byte.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gptexp.config import Config, ModelConfig
from gptexp.data.batches import Batch, BatchPlan
from gptexp.data.masking import MaskedTrain, MaskedVal, Masking
from gptexp.data.order import WindowOrder
from gptexp.data.prepare import PreparedData
from gptexp.models.build import plain_model
from gptexp.models.losses import IGNORED, cross_entropy
from gptexp.objectives import Objective
from gptexp.objectives import Score as ScoreBase
from gptexp.objectives.lm import windows_in_words


@dataclass(frozen=True)
class Score(ScoreBase):
    """How well hidden tokens were found. nats, found: sums over the hidden tokens, of which there are `tokens`."""

    nats: float
    found: int
    tokens: int

    def metrics(self) -> dict[str, float]:
        if not self.tokens:
            return {"val/mlm_loss": math.nan, "val/mlm_accuracy": math.nan}
        return {"val/mlm_loss": self.nats / self.tokens, "val/mlm_accuracy": self.found / self.tokens}

    def record(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "found": self.found, "mlm_nats": self.nats}


class MaskedLanguageModelling(Objective):
    """Batches: tokens (B, T) of which some are hidden, targets (B, T), lengths (B,).

    The mask is one token more than the tokenizer has, the last row of wte; it stands for no text.
    """

    gives = "it finds hidden tokens from both sides, and gives no next token to generate and no likelihood to score"
    parts = ("tokens", "targets", "lengths")
    told = ("val/mlm_loss", "val/mlm_accuracy")
    after = "python -m gptexp.train init_from=RUN objective=classification data=labelled data.path=FILE.csv"

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size + 1

    @property
    def masking(self) -> Masking:
        return Masking(self.config.mask_fraction, self.tokenizer.vocab_size, self.tokenizer.eot)

    def make_model(self, config: ModelConfig) -> nn.Module:
        return plain_model(config, self.vocab_size, causal=False)

    def train_batches(
        self, data: PreparedData, config: Config, plan: BatchPlan, *, rank: int, first_step: int, last_step: int
    ) -> MaskedTrain:
        order = WindowOrder(len(data.train), config.model.block_size, config.seed)
        return MaskedTrain(data.train, order, plan, self.masking, rank=rank, first_step=first_step, last_step=last_step)

    def val_batches(self, data: PreparedData, config: Config, plan: BatchPlan, *, rank: int) -> MaskedVal:
        return MaskedVal(
            data.val,
            self.masking,
            block_size=config.model.block_size,
            batch=plan.micro_batch,
            rank=rank,
            world_size=plan.world_size,
        )

    def describe(self, data: PreparedData, config: Config, plan: BatchPlan) -> tuple[str, str]:
        hidden = f"{self.config.mask_fraction:.0%} of {len(data.val):,} tokens"
        return windows_in_words(data, config, plan), hidden

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        tokens, targets, lengths = batch
        return cross_entropy(model(tokens, lengths=lengths), targets)

    def measure(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Nats, hits and number of the hidden tokens."""
        tokens, targets, lengths = batch
        logits = model(tokens, lengths=lengths)
        nats = float(cross_entropy(logits, targets, reduction="sum"))
        hidden = targets != IGNORED
        found = int((logits.argmax(-1) == targets)[hidden].sum())
        return torch.tensor([nats, found, int(hidden.sum())], dtype=torch.float64)

    def score(self, sums: torch.Tensor) -> Score:
        nats, found, tokens = sums.tolist()
        return Score(nats, round(found), round(tokens))


Implementation = MaskedLanguageModelling
