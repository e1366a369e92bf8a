"""Published tasks that a language model answers without training: LAMBADA's last word, HellaSwag's ending.

Each file is JSON lines in its public format. A question is a context and a continuation; the model scores the
continuation's tokens, and sees as much of the context as its block_size holds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import nn

from gptexp.evaluation.scoring import windows_that_fit
from gptexp.models.losses import IGNORED, cross_entropy
from gptexp.objectives.lm import Score
from gptexp.tokenizers import Tokenizer

_BRACKETED = re.compile(r"\[.*?\]")


@dataclass(frozen=True)
class Question:
    """tokens: context and continuation; n_scored: how many of them, at the end, are the continuation."""

    tokens: np.ndarray
    n_scored: int


@dataclass(frozen=True)
class Answer:
    """nats: of the continuation. greedy: each of its tokens is the likeliest after those before it."""

    nats: float
    greedy: bool


def lambada(
    model: nn.Module, tokenizer: Tokenizer, path: Path, *, block_size: int, batch: int | None = None
) -> dict[str, Any]:
    """The last word of each text (arXiv 1606.06031): how often it is found, and its perplexity.

    Found: greedy decoding writes all its tokens. Perplexity: exp of the mean nats of a whole last word. That is
    lm-evaluation-harness's lambada_openai, whose texts are whole passages with their punctuation. As there, the
    last word begins at the last space: one that follows a line break is scored with the word before that.

    Raises:
        ValueError: naming file, line and what is wrong in it.
    """

    def question(row: dict[str, Any]) -> list[Question]:
        context, _, word = _text(row, "text").strip().rpartition(" ")
        if not context:
            raise ValueError("its `text` has no space, so no word before the last one")
        return [_question(tokenizer, context, f" {word}", block_size)]

    found, nats = [], []
    for (answer,), _ in _answered(model, tokenizer, path, question, block_size, batch):
        found.append(answer.greedy)
        nats.append(answer.nats)
    per_word = Score(sum(nats), len(nats), bytes=1)  # its "tokens" are whole words here
    return {"accuracy": fmean(found), "perplexity": per_word.perplexity, "examples": len(found)}


def hellaswag(
    model: nn.Module, tokenizer: Tokenizer, path: Path, *, block_size: int, batch: int | None = None
) -> dict[str, Any]:
    """Which ending follows (arXiv 1905.07830), in the texts and the two measures of lm-evaluation-harness's hellaswag.

    acc: the ending of the least nats. acc_norm: the ending of the least nats per character, its space not counted.

    Raises:
        ValueError: naming file, line and what is wrong in it.
    """

    def questions(row: dict[str, Any]) -> list[Question]:
        context, endings = _context(row), _endings(row)
        _label(row, endings)
        return [_question(tokenizer, context, f" {ending}", block_size) for ending in endings]

    by_sum, by_character = [], []
    for answers, row in _answered(model, tokenizer, path, questions, block_size, batch):
        endings = _endings(row)
        label = _label(row, endings)
        nats = [answer.nats for answer in answers]
        rates = [n / len(ending) if ending else math.inf for n, ending in zip(nats, endings, strict=True)]
        by_sum.append(nats.index(min(nats)) == label)
        by_character.append(rates.index(min(rates)) == label)
    return {"acc": fmean(by_sum), "acc_norm": fmean(by_character), "examples": len(by_sum)}


def _context(row: dict[str, Any]) -> str:
    """The activity, what is known of it, and how its next sentence begins: empty in the texts from WikiHow."""
    begun = row.get("ctx_b")
    if not isinstance(begun, str):
        raise ValueError("it has no text in `ctx_b`")
    return _cleaned(f"{_text(row, 'activity_label')}: {_text(row, 'ctx_a')} {begun.capitalize()}")


def _cleaned(text: str) -> str:
    """Without WikiHow's marks: " [title]" ends a sentence, what else stands in brackets goes."""
    return _BRACKETED.sub("", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _endings(row: dict[str, Any]) -> list[str]:
    endings = row.get("endings")
    if not isinstance(endings, list) or len(endings) < 2 or not all(isinstance(e, str) and e for e in endings):
        raise ValueError("its `endings` are not a list of at least two texts")
    return [_cleaned(ending) for ending in endings]


def _label(row: dict[str, Any], endings: list[str]) -> int:
    """The number of the right ending; the public files have it as a number or as a text of digits."""
    label = str(row.get("label", ""))
    if not label.isascii() or not label.isdigit() or int(label) >= len(endings):
        raise ValueError(f"its `label` is {row.get('label')!r}, not the number of an ending from 0")
    return int(label)


def _text(row: dict[str, Any], key: str) -> str:
    if not isinstance(row.get(key), str) or not row[key].strip():
        raise ValueError(f"it has no text in `{key}`")
    return row[key]


def _question(tokenizer: Tokenizer, context: str, continuation: str, block_size: int) -> Question:
    """White space at the context's end belongs to the continuation: tokens begin with it."""
    seen = context.rstrip()
    continuation = context[len(seen) :] + continuation
    before, after = tokenizer.encode(seen), tokenizer.encode(continuation)
    if len(after) > block_size:
        raise ValueError(f"{continuation!r} has {len(after)} tokens, more than block_size={block_size}")
    return Question(np.concatenate((before, after))[-(block_size + 1) :].astype(np.int64), len(after))


def _answered(
    model: nn.Module,
    tokenizer: Tokenizer,
    path: Path,
    questions: Callable[[dict[str, Any]], list[Question]],
    block_size: int,
    batch: int | None,
) -> Iterator[tuple[list[Answer], dict[str, Any]]]:
    """The answers to each line's questions, with the line; as many lines in memory as fill a batch."""
    batch = batch or windows_that_fit(tokenizer, block_size)
    waiting: list[tuple[list[Question], dict[str, Any]]] = []
    for line in _checked(path, questions):
        waiting.append(line)
        if sum(len(own) for own, _ in waiting) >= batch:
            yield from _settled(model, waiting, batch)
            waiting = []
    yield from _settled(model, waiting, batch)


def _settled(
    model: nn.Module, lines: list[tuple[list[Question], dict[str, Any]]], batch: int
) -> Iterator[tuple[list[Answer], dict[str, Any]]]:
    asked = [question for own, _ in lines for question in own]
    answers = iter([answer for i in range(0, len(asked), batch) for answer in _ask(model, asked[i : i + batch])])
    for own, row in lines:
        yield list(islice(answers, len(own))), row


def _checked(
    path: Path, questions: Callable[[dict[str, Any]], list[Question]]
) -> Iterator[tuple[list[Question], dict[str, Any]]]:
    """Each line's questions; errors say which line."""
    number = 0
    for number, line in _lines(path):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("it is no JSON object")
            yield questions(row), row
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: is no JSON ({error.msg})") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    if number == 0:
        raise ValueError(f"{path}: has no lines, so there is nothing to score")


def _lines(path: Path) -> Iterable[tuple[int, str]]:
    with path.open(encoding="utf-8-sig") as file:
        try:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
        except UnicodeDecodeError:
            raise ValueError(f"{path}: is not UTF-8, as JSON lines are") from None


@torch.inference_mode()
def _ask(model: nn.Module, questions: list[Question]) -> list[Answer]:
    """One forward pass; padding stands on the right, where nothing before it looks."""
    longest = max(len(question.tokens) for question in questions) - 1
    tokens = np.zeros((len(questions), longest), dtype=np.int64)
    targets = np.full_like(tokens, IGNORED)
    for row, question in enumerate(questions):
        end = len(question.tokens) - 1
        tokens[row, :end] = question.tokens[:-1]
        targets[row, end - question.n_scored : end] = question.tokens[-question.n_scored :]
    wanted = torch.from_numpy(targets)
    logits = model.eval()(torch.from_numpy(tokens))  # (B, T, V)
    nats = cross_entropy(logits, wanted, reduction="none").view_as(wanted).double().sum(dim=1)  # (B,)
    greedy = ((logits.argmax(-1) == wanted) | (wanted == IGNORED)).all(dim=1)
    return [Answer(n, g) for n, g in zip(nats.tolist(), greedy.tolist(), strict=True)]
