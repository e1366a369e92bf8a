"""The next token of a text: language modelling, scored in nats per token and bits per byte."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gptexp.config import Config
from gptexp.data.batches import Batch, BatchPlan, TrainBatches, ValBatches, scored
from gptexp.data.mixture import Texts
from gptexp.data.prepare import TextData
from gptexp.models.losses import IGNORED, cross_entropy
from gptexp.objectives.base import Objective
from gptexp.objectives.base import Score as ScoreBase
from gptexp.util.text import quantity


def nats_of(model: nn.Module, batch: Batch, reduction: str = "mean") -> torch.Tensor:
    """Return the mean or the sum of the nats of the targets, (), or with "none" the nats of each, (B * T,).

    A model that takes targets computes mean and sum itself, which needs less memory than all logits.
    """
    tokens, targets = batch
    if reduction != "none" and getattr(model, "takes_targets", False):
        nats: torch.Tensor = model(tokens, targets=targets, reduction=reduction)
        return nats
    return cross_entropy(model(tokens), targets, reduction)


@dataclass(frozen=True)
class Score(ScoreBase):
    """How well a model predicts a text, which is the same for every tokenizer and block size.

    nats: sum over the scored tokens. tokens: number of scored tokens. bytes: UTF-8 bytes of these tokens.
    """

    nats: float
    tokens: int
    bytes: int

    def __add__(self, other: Score) -> Score:
        return Score(self.nats + other.nats, self.tokens + other.tokens, self.bytes + other.bytes)

    def sums(self) -> list[float]:
        return [float(self.nats), float(self.tokens), float(self.bytes)]

    @property
    def loss(self) -> float:
        """Nats per token: comparable only between runs with the same tokenizer."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(loss); inf if that overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bpb(self) -> float:
        """Bits per byte of the raw text: comparable across tokenizers."""
        return self.nats / math.log(2) / self.bytes

    def metrics(self) -> dict[str, float]:
        return {"val/loss": self.loss, "val/bpb": self.bpb, "val/perplexity": self.perplexity}

    def record(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "tokens": self.tokens, "nats": self.nats}

    def line(self) -> str:
        return f"val/bpb {self.bpb:.3f} · val/loss {self.loss:.3f} · perplexity {self.perplexity:,.1f}"


class LanguageModelling(Objective[TextData]):
    """Batches: tokens (B, T) and the token after each, (B, T)."""

    parts = ("tokens", "targets")
    generates = True
    headline = ("val/bpb", "val/loss")
    next_step = "gptexp generate RUN"

    def next_command(self, run: str, data: TextData) -> str:
        """Return the command with a prompt from the validation text, whose characters every tokenizer knows.

        The prompt is a word, which every shell accepts in double quotes. In a script without spaces it is cut.
        """
        beginning = self.tokenizer.decode(data.val.read(0, min(256, len(data.val))).tolist())
        word = re.search(r"\w+", beginning)
        return super().next_command(run, data) + (f' --prompt "{word[0][:12]}"' if word else "")

    def train_batches(
        self,
        data: Texts,
        config: Config,
        plan: BatchPlan,
        *,
        rank: int,
        first_step: int,
        last_step: int,
    ) -> TrainBatches:
        order = data.order(config.model.block_size, config.seed)
        return TrainBatches(data.train, order, plan, rank=rank, first_step=first_step, last_step=last_step)

    def val_batches(self, data: TextData, config: Config, plan: BatchPlan, *, rank: int) -> ValBatches:
        return ValBatches(
            data.val,
            config.model.block_size,
            eot=self.tokenizer.eot,
            batch=plan.micro_batch,
            rank=rank,
            world_size=plan.world_size,
        )

    def describe(self, data: TextData, config: Config, plan: BatchPlan, steps: int) -> tuple[str, str]:
        _, n_bytes = scored(data.val, self.tokenizer.token_bytes, self.tokenizer.eot)
        return describe_windows(data, config, plan, steps), f"{n_bytes:,} bytes"

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return nats_of(model, batch)

    def measure(self, model: nn.Module, batch: Batch) -> Score:
        """Score the targets that are not ignored."""
        targets = batch[1]
        counted = targets[targets != IGNORED].cpu().numpy()
        n_bytes = int(self.tokenizer.token_bytes[counted].sum())
        return Score(float(nats_of(model, batch, "sum")), len(counted), n_bytes)

    def score(self, sums: list[float]) -> Score:
        nats, tokens, n_bytes = sums
        return Score(nats, round(tokens), round(n_bytes))


def describe_windows(data: TextData, config: Config, plan: BatchPlan, steps: int) -> str:
    """Return what a run of so many steps learns from if its batches are windows of a text."""
    block_size = config.model.block_size
    tokens = steps * plan.windows * block_size
    return (
        f"{steps:,} steps × {plan.windows:,} window{'s' * (plan.windows > 1)} of {block_size:,} = "
        f"{quantity(tokens)} tokens · {tokens / len(data.train):.1f} epochs of {len(data.train):,}"
    )
