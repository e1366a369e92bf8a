"""The next token: language modelling, scored in nats a token and bits a byte."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gptexp.config import Config
from gptexp.data.batches import Batch, BatchPlan, TrainBatches, ValBatches, scored
from gptexp.data.order import WindowOrder
from gptexp.data.prepare import PreparedData
from gptexp.models.losses import IGNORED, cross_entropy
from gptexp.objectives import Objective
from gptexp.objectives import Score as ScoreBase
from gptexp.util.text import quantity


def nats_of(model: nn.Module, batch: Batch, reduction: str = "mean") -> torch.Tensor:
    """Of the targets, their mean or their sum; by the model itself, where it takes targets."""
    tokens, targets = batch
    if getattr(model, "takes_targets", False):
        return model(tokens, targets=targets, reduction=reduction)
    return cross_entropy(model(tokens), targets, reduction)


@dataclass(frozen=True)
class Score(ScoreBase):
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
        return {"val/loss": self.loss, "val/bpb": self.bpb, "val/perplexity": self.perplexity}

    def record(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "tokens": self.tokens, "nats": self.nats}

    def line(self) -> str:
        return f"val/bpb {self.bpb:.3f} · val/loss {self.loss:.3f} · perplexity {self.perplexity:,.1f}"


class LanguageModelling(Objective):
    """Batches: tokens (B, T) and the token after each, (B, T)."""

    parts = ("tokens", "targets")
    writes = True
    told = ("val/bpb", "val/loss")
    after = "python -m gptexp.generate RUN"

    def next_command(self, run: str, data: PreparedData) -> str:
        """With a prompt from the validation text, because a tokenizer may know no other characters.

        It is a word, as every shell takes it in double quotes. Writing that has no spaces is cut.
        """
        beginning = self.tokenizer.decode(data.val.read(0, min(256, len(data.val))).tolist())
        word = re.search(r"\w+", beginning)
        return super().next_command(run, data) + (f' --prompt "{word[0][:12]}"' if word else "")

    def train_batches(
        self, data: PreparedData, config: Config, plan: BatchPlan, *, rank: int, first_step: int, last_step: int
    ) -> TrainBatches:
        order = WindowOrder(len(data.train), config.model.block_size, config.seed)
        return TrainBatches(data.train, order, plan, rank=rank, first_step=first_step, last_step=last_step)

    def val_batches(self, data: PreparedData, config: Config, plan: BatchPlan, *, rank: int) -> ValBatches:
        return ValBatches(
            data.val,
            config.model.block_size,
            eot=self.tokenizer.eot,
            batch=plan.micro_batch,
            rank=rank,
            world_size=plan.world_size,
        )

    def describe(self, data: PreparedData, config: Config, plan: BatchPlan) -> tuple[str, str]:
        _, n_bytes = scored(data.val, self.tokenizer.token_bytes, self.tokenizer.eot)
        return windows_in_words(data, config, plan), f"{n_bytes:,} bytes"

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return nats_of(model, batch)

    def measure(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Nats, tokens and bytes of the targets that count."""
        targets = batch[1]
        counted = targets[targets != IGNORED].cpu().numpy()
        n_bytes = int(self.tokenizer.token_bytes[counted].sum())
        return torch.tensor([float(nats_of(model, batch, "sum")), len(counted), n_bytes], dtype=torch.float64)

    def score(self, sums: torch.Tensor) -> Score:
        nats, tokens, n_bytes = sums.tolist()
        return Score(nats, round(tokens), round(n_bytes))


def windows_in_words(data: PreparedData, config: Config, plan: BatchPlan) -> str:
    """What a run learns from, of an objective whose batches are windows of a text."""
    steps, block_size = config.trainer.max_steps, config.model.block_size
    tokens = steps * plan.windows * block_size
    return (
        f"{steps:,} steps × {plan.windows:,} window{'s' * (plan.windows > 1)} of {block_size:,} = "
        f"{quantity(tokens)} tokens · {tokens / len(data.train):.1f} epochs of {len(data.train):,}"
    )


Implementation = LanguageModelling
