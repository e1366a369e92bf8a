"""The label of a text: GPT-1's supervised fine-tuning (Radford et al. 2018, section 3.2).

A linear head reads the hidden state of each text's last token. The loss of the label is added to that of the text's
tokens times `objective.lm_weight`. Texts longer than block_size keep their end. Losses are means over texts, and within
a text over its tokens, so they do not depend on how a batch is divided into micro-batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from gptexp.config import Config
from gptexp.config.data import LabelledConfig
from gptexp.config.model import GPTConfig, ModelConfig
from gptexp.config.objective import ClassWeights
from gptexp.config.tokenizer import TokenizerConfig
from gptexp.data.batches import Batch, BatchPlan
from gptexp.data.corpora.labelled import Label
from gptexp.data.examples import LabelledData, TrainTexts, ValTexts, pad
from gptexp.data.labelled import prepare_labelled
from gptexp.data.order import ExampleOrder
from gptexp.data.prepared import LabelFacts
from gptexp.models.build import plain_model
from gptexp.models.classifier import Classifier
from gptexp.models.gpt import GPT
from gptexp.models.losses import IGNORED
from gptexp.models.placement import device_of
from gptexp.objectives.base import Objective
from gptexp.objectives.base import Score as ScoreBase
from gptexp.tokenizers import Tokenizer
from gptexp.util.text import quantity


@dataclass(frozen=True)
class Score(ScoreBase):
    """How well the labels of texts are predicted.

    nats: sum over the texts, of the correct label. confusion (K, K): numbers of texts by correct label (row) and
    predicted label (column).
    """

    nats: float
    confusion: np.ndarray
    labels: list[Label]

    def __add__(self, other: Score) -> Score:
        return Score(self.nats + other.nats, self.confusion + other.confusion, self.labels)

    def sums(self) -> list[float]:
        return [float(self.nats), *self.confusion.flatten().tolist()]

    @property
    def texts(self) -> int:
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.confusion)) / self.texts

    @property
    def macro_f1(self) -> float:
        """Mean over labels of 2·hits / (texts with the label + predictions of it); labels without both are left out."""
        hits, both = np.diag(self.confusion), self.confusion.sum(axis=1) + self.confusion.sum(axis=0)
        return float((2 * hits[both > 0] / both[both > 0]).mean())

    def metrics(self) -> dict[str, float]:
        return {"val/loss": self.nats / self.texts, "val/accuracy": self.accuracy, "val/macro_f1": self.macro_f1}

    def record(self) -> dict[str, Any]:
        confusion = self.confusion.astype(int).tolist()
        return {"texts": self.texts, "nats": self.nats, "labels": self.labels, "confusion": confusion}


class Classification(Objective[LabelledData]):
    """Batches: tokens (B, T) padded on the right, lengths (B,), labels (B,) as positions in the list of labels."""

    facts_type = LabelFacts
    why_no_text = "it predicts a label (gptexp predict) and no text"
    parts = ("tokens", "lengths", "labels")
    headline = ("val/accuracy", "val/macro_f1", "val/loss")
    next_step = 'gptexp predict RUN --text "…"'

    def __init__(self, config: Any, tokenizer: Tokenizer, facts: LabelFacts) -> None:
        super().__init__(config, tokenizer, facts)
        self.labels, self.counts = facts.labels, facts.counts
        self._weights = torch.ones(len(self.labels))
        if config.class_weights is ClassWeights.balanced:
            counts = torch.tensor(self.counts, dtype=torch.float32)
            self._weights = counts.sum() / (len(counts) * counts)  # the mean over training texts is 1

    # ------------------------------------------------------------------------------ data

    @staticmethod
    def prepare(config: Config, tokenizer: TokenizerConfig | Tokenizer, cache: Path) -> LabelledData:
        assert isinstance(config.data, LabelledConfig)
        return prepare_labelled(config.data, tokenizer, cache)

    def train_batches(
        self, data: LabelledData, config: Config, plan: BatchPlan, *, rank: int, first_step: int, last_step: int
    ) -> TrainTexts:
        return TrainTexts(
            data.train,
            ExampleOrder(len(data.train), config.seed),
            plan,
            block_size=config.model.block_size,
            rank=rank,
            first_step=first_step,
            last_step=last_step,
        )

    def val_batches(self, data: LabelledData, config: Config, plan: BatchPlan, *, rank: int) -> ValTexts:
        size, block_size = plan.micro_batch, config.model.block_size
        return ValTexts(data.val, block_size=block_size, batch=size, rank=rank, world_size=plan.world_size)

    def tokens_per_step(self, data: LabelledData, config: Config, plan: BatchPlan) -> int:
        """Return the mean number of tokens, which is exact over an epoch."""
        return max(1, round(plan.windows * data.train.seen_tokens(config.model.block_size) / len(data.train)))

    def describe(self, data: LabelledData, config: Config, plan: BatchPlan, steps: int) -> tuple[str, str]:
        n = len(data.train)
        cut = int((data.train.lengths > config.model.block_size).sum())
        learned = (
            f"{n:,} training texts, {len(self.labels):,} labels · {steps:,} steps × {plan.windows:,} texts = "
            f"{quantity(steps * plan.windows)} texts ({steps * plan.windows / n:.1f} epochs)"
        )
        if cut:
            learned += f"\n{cut / n:.0%} are longer than {config.model.block_size:,} tokens and keep their end"
        return learned, f"{len(data.val):,} texts"

    # ------------------------------------------------------------------------------ model

    def make_model(self, config: ModelConfig) -> nn.Module:
        gpt = plain_model(config, self.vocab_size, causal=self.config.causal)
        assert isinstance(gpt, GPT)
        return Classifier(gpt, len(self.labels), auxiliary=self.config.auxiliary > 0)

    # --------------------------------------------------------------------- loss and score

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the mean over texts of w(label) · nats of the label, plus lm_weight · mean nats of its tokens."""
        tokens, lengths, labels = batch
        logits, token_logits = model(tokens, lengths)
        nats = F.cross_entropy(_at_least_float32(logits), labels, reduction="none")  # (B,)
        loss: torch.Tensor = (nats * self._weights.to(nats)[labels]).mean()
        if token_logits is not None:
            auxiliary = text_nats(token_logits, tokens, lengths, self.tokenizer.eot).mean()
            loss = loss + self.config.auxiliary * auxiliary
        return loss

    def measure(self, model: nn.Module, batch: Batch) -> Score:
        """Score the texts whose label is not ignored."""
        tokens, lengths, labels = batch
        logits, _ = model(tokens, lengths)
        nats = float(F.cross_entropy(_at_least_float32(logits), labels, ignore_index=IGNORED, reduction="sum"))
        counted, n = labels != IGNORED, len(self.labels)
        pairs = (labels * n + logits.argmax(-1))[counted].cpu()
        confusion = torch.bincount(pairs, minlength=n * n).reshape(n, n).double().numpy()
        return Score(nats, confusion, self.labels)

    def score(self, sums: list[float]) -> Score:
        n = len(self.labels)
        return Score(sums[0], np.array(sums[1:], dtype=np.float64).reshape(n, n), self.labels)

    # -------------------------------------------------------------------------- prediction

    @torch.inference_mode()
    def probabilities(self, model: nn.Module, texts: Sequence[str]) -> torch.Tensor:
        """Return the probability of each label for each text, (B, K). ValueError: a text has no tokens."""
        config = model.config
        assert isinstance(config, GPTConfig)
        device = device_of(model)
        tokens, lengths = (part.to(device) for part in pad([self._encode(t, config.block_size) for t in texts]))
        return _at_least_float32(model(tokens, lengths)[0]).softmax(-1)

    def _encode(self, text: str, block_size: int) -> np.ndarray:
        try:
            tokens = self.tokenizer.encode(text)[-block_size:]
        except ValueError as error:
            raise ValueError(f"the text {text[:40]!r}: {error}") from None
        if not len(tokens):
            raise ValueError("a text is empty, so no label can be predicted")
        return tokens


def text_nats(logits: torch.Tensor, tokens: torch.Tensor, lengths: torch.Tensor, eot: int | None) -> torch.Tensor:
    """Return the mean nats of each text's tokens except the first, (B,), under logits (B, T, V); 0 for one token."""
    targets = tokens[:, 1:]  # (B, T - 1)
    places = torch.arange(targets.shape[1], device=tokens.device)
    scored = places < (lengths - 1)[:, None]  # without padding
    if eot is not None:
        scored = scored & (targets != eot)
    nats = F.cross_entropy(_at_least_float32(logits[:, :-1]).flatten(0, 1), targets.flatten(), reduction="none")
    return (nats.view_as(targets) * scored).sum(1) / scored.sum(1).clamp(min=1)


def _at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
