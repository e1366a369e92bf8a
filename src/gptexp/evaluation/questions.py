"""A question is a context and a continuation, whose log-likelihood a model gives: the form of most published tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from gptexp.evaluation.scoring import windows_that_fit
from gptexp.models.losses import IGNORED, cross_entropy
from gptexp.models.placement import device_of
from gptexp.tokenizers import Tokenizer


@dataclass(frozen=True)
class Question:
    """tokens: context and continuation, (n,). n_scored: how many at the end are the continuation."""

    tokens: np.ndarray
    n_scored: int


@dataclass(frozen=True)
class Answer:
    """nats: of the continuation. greedy: whether greedy decoding gives all its tokens."""

    nats: float
    greedy: bool


def question(before: Sequence[int] | np.ndarray, after: Sequence[int] | np.ndarray, block_size: int) -> Question:
    """Return the question with as much of the context as block_size allows; both have at least one token.

    Raises:
        ValueError: the continuation has more tokens than block_size.
    """
    if len(after) > block_size:
        raise ValueError(f"a continuation has {len(after)} tokens, more than block_size={block_size}")
    return Question(np.concatenate((before, after))[-(block_size + 1) :].astype(np.int64), len(after))


def answers(
    model: nn.Module, tokenizer: Tokenizer, questions: Sequence[Question], batch: int | None = None
) -> Iterator[tuple[int, Answer]]:
    """Yield each question's index and its answer, those of long questions first, so that batches have little padding.

    batch: questions per forward pass; None: as many as fit.
    """
    order = sorted(range(len(questions)), key=lambda i: -len(questions[i].tokens))
    while order:
        size = batch or windows_that_fit(model, tokenizer, len(questions[order[0]].tokens))
        rows, order = order[:size], order[size:]
        yield from zip(rows, _answer(model, [questions[row] for row in rows]), strict=True)


@torch.inference_mode()
def _answer(model: nn.Module, questions: Sequence[Question]) -> list[Answer]:
    """Answer questions in one forward pass; padding is on the right, where no token attends to it."""
    longest = max(len(question.tokens) for question in questions) - 1
    tokens = np.zeros((len(questions), longest), dtype=np.int64)
    targets = np.full_like(tokens, IGNORED)
    for row, question in enumerate(questions):
        end = len(question.tokens) - 1
        tokens[row, :end] = question.tokens[:-1]
        targets[row, end - question.n_scored : end] = question.tokens[-question.n_scored :]
    device = device_of(model)
    wanted = torch.from_numpy(targets).to(device)
    logits = model.eval()(torch.from_numpy(tokens).to(device))  # (B, T, V)
    nats = cross_entropy(logits, wanted, reduction="none").view_as(wanted).cpu().double().sum(dim=1)  # (B,)
    greedy = ((logits.argmax(-1) == wanted) | (wanted == IGNORED)).all(dim=1)
    return [Answer(n, g) for n, g in zip(nats.tolist(), greedy.tolist(), strict=True)]
