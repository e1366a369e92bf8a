"""The label of a text: GPT-1's supervised fine-tuning (Radford et al. 2018, section 3.2).

A linear head reads the hidden state of each text's last token; beside the label's loss stands, with the weight
`objective.lm_weight`, that of the text's own tokens. Texts longer than block_size keep their end. Losses are means over
texts, and within a text over its tokens, so they don't depend on how a batch is cut into micro-batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from gptexp.config import ClassWeights, Config, GPTConfig, LabelledConfig, ModelConfig
from gptexp.data.batches import Batch, BatchPlan
from gptexp.data.examples import LabelledData, TrainTexts, ValTexts, pad
from gptexp.data.order import ExampleOrder
from gptexp.models.build import plain_model
from gptexp.models.classifier import Classifier
from gptexp.models.gpt import GPT
from gptexp.models.losses import IGNORED
from gptexp.objectives import Objective
from gptexp.objectives import Score as ScoreBase
from gptexp.util.text import quantity

Label = str | int


@dataclass(frozen=True)
class Score(ScoreBase):
    """nats: sum over the texts, of the right label. confusion (K, K): texts by their label (row) and the one found."""

    nats: float
    confusion: np.ndarray
    labels: list[Label]

    @property
    def texts(self) -> int:
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.confusion)) / self.texts

    @property
    def macro_f1(self) -> float:
        """The mean over labels of 2·hits / (texts of it + texts taken for it); a label with neither doesn't count."""
        hits, of, taken = np.diag(self.confusion), self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        known = of + taken > 0
        return float((2 * hits[known] / (of + taken)[known]).mean())

    def metrics(self) -> dict[str, float]:
        return {"val/loss": self.nats / self.texts, "val/accuracy": self.accuracy, "val/macro_f1": self.macro_f1}

    def record(self) -> dict[str, Any]:
        confusion = self.confusion.astype(int).tolist()
        return {"texts": self.texts, "nats": self.nats, "labels": self.labels, "confusion": confusion}


class Classification(Objective):
    """Batches: tokens (B, T) padded on the right, lengths (B,), labels (B,) as places in the list of labels."""

    gives = "it gives a label (python -m gptexp.predict), and no text"
    parts = ("tokens", "lengths", "labels")
    told = ("val/accuracy", "val/macro_f1", "val/loss")
    after = 'python -m gptexp.predict RUN --text "…"'

    def __init__(self, config: Any, tokenizer: Any, facts: Mapping[str, Any]) -> None:
        super().__init__(config, tokenizer, facts)
        self.labels, self.counts = _labels(facts)
        self._weights = torch.ones(len(self.labels))
        if config.class_weights is ClassWeights.balanced:
            counts = torch.tensor(self.counts, dtype=torch.float32)
            self._weights = counts.sum() / (len(counts) * counts)  # the mean over training texts is 1

    # ------------------------------------------------------------------------------ data

    @staticmethod
    def prepare(config: Config, tokenizer: Any, cache: Path) -> LabelledData:
        from gptexp.data.labelled import prepare_labelled

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
        """On the average, which over an epoch is exact."""
        return max(1, round(plan.windows * data.train.seen_tokens(config.model.block_size) / len(data.train)))

    def describe(self, data: LabelledData, config: Config, plan: BatchPlan) -> tuple[str, str]:
        n, steps = len(data.train), config.trainer.max_steps
        cut = int((data.train.lengths > config.model.block_size).sum())
        words = (
            f"{n:,} training texts, {len(self.labels):,} labels · {steps:,} steps × {plan.windows:,} texts = "
            f"{quantity(steps * plan.windows)} texts ({steps * plan.windows / n:.1f} epochs)"
        )
        if cut:
            words += f"\n{cut / n:.0%} are longer than {config.model.block_size:,} tokens and keep their end"
        return words, f"{len(data.val):,} texts"

    # ------------------------------------------------------------------------------ model

    def make_model(self, config: ModelConfig) -> nn.Module:
        gpt = plain_model(config, self.vocab_size, causal=self.config.causal)
        assert isinstance(gpt, GPT)
        return Classifier(gpt, len(self.labels), auxiliary=self.config.auxiliary > 0)

    # --------------------------------------------------------------------- loss and score

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The mean over texts of w(label)·nats of the label, plus lm_weight times that of the nats of its tokens."""
        tokens, lengths, labels = batch
        logits, token_logits = model(tokens, lengths)
        nats = F.cross_entropy(_wide(logits), labels, reduction="none")  # (B,)
        loss = (nats * self._weights.to(nats)[labels]).mean()
        if token_logits is None:
            return loss
        return loss + self.config.auxiliary * text_nats(token_logits, tokens, lengths, self.tokenizer.eot).mean()

    def measure(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Nats of the right labels, and the confusion matrix row by row."""
        tokens, lengths, labels = batch
        logits, _ = model(tokens, lengths)
        nats = float(F.cross_entropy(_wide(logits), labels, ignore_index=IGNORED, reduction="sum"))
        counted, n = labels != IGNORED, len(self.labels)
        pairs = (labels * n + logits.argmax(-1))[counted].cpu()
        return torch.cat((torch.tensor([nats], dtype=torch.float64), torch.bincount(pairs, minlength=n * n).double()))

    def score(self, sums: torch.Tensor) -> Score:
        n = len(self.labels)
        return Score(float(sums[0]), sums[1:].reshape(n, n).numpy(), self.labels)

    # -------------------------------------------------------------------------- predicting

    @torch.inference_mode()
    def probabilities(self, model: nn.Module, texts: Sequence[str]) -> torch.Tensor:
        """Of each label for each text, (len(texts), K). ValueError: a text is empty, or can't be tokenised."""
        config = model.config
        assert isinstance(config, GPTConfig)
        tokens, lengths = pad([self._encode(text, config.block_size) for text in texts])
        return _wide(model(tokens, lengths)[0]).softmax(-1)

    def _encode(self, text: str, block_size: int) -> np.ndarray:
        try:
            tokens = self.tokenizer.encode(text)[-block_size:]
        except ValueError as error:
            raise ValueError(f"the text {text[:40]!r}: {error}") from None
        if not len(tokens):
            raise ValueError("a text is empty, so there is nothing to read its label from")
        return tokens


def text_nats(logits: torch.Tensor, tokens: torch.Tensor, lengths: torch.Tensor, eot: int | None) -> torch.Tensor:
    """Mean nats of each text's tokens but its first, (B,), under logits (B, T, V); 0 for a text of one token."""
    targets = tokens[:, 1:]  # (B, T - 1)
    places = torch.arange(targets.shape[1], device=tokens.device)
    scored = places < (lengths - 1)[:, None]  # padding doesn't count
    if eot is not None:
        scored = scored & (targets != eot)
    nats = F.cross_entropy(_wide(logits[:, :-1]).flatten(0, 1), targets.flatten(), reduction="none")
    return (nats.view_as(targets) * scored).sum(1) / scored.sum(1).clamp(min=1)


def _wide(logits: torch.Tensor) -> torch.Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _labels(facts: Mapping[str, Any]) -> tuple[list[Label], list[int]]:
    """The labels and how many training texts each had. ValueError: a checkpoint says something else."""
    labels, counts = facts.get("labels"), facts.get("counts")
    if not isinstance(labels, list) or not isinstance(counts, list):
        raise ValueError("a classifier has lists of its labels and of their counts")
    plain = len(labels) > 1 and all(type(label) in (str, int) for label in labels)
    if not plain or not len(counts) == len(labels) == len(set(labels)):
        raise ValueError("a classifier has a list of at least two different labels, and a count for each")
    if not all(type(count) is int and 0 < count < 2**63 for count in counts):
        raise ValueError("the counts of a classifier's labels are whole numbers from 1")
    return labels, counts


Implementation = Classification
