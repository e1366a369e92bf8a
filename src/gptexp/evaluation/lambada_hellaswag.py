"""Published tasks that a language model solves without training: LAMBADA (last word) and HellaSwag (ending).

Each file has JSON lines in its public format. A question is a context and a continuation. The model scores the tokens
of the continuation, with as much of the context as block_size allows.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import nn

from gptexp.evaluation.questions import Answer, Question, answer, question
from gptexp.evaluation.scoring import windows_that_fit
from gptexp.objectives.lm import Score
from gptexp.tokenizers import Tokenizer

_BRACKETED = re.compile(r"\[.*?\]")


def lambada(
    model: nn.Module, tokenizer: Tokenizer, path: Path, *, block_size: int, batch: int | None = None
) -> dict[str, Any]:
    """Return how often the last word of a text (arXiv 1606.06031) is predicted, and its perplexity.

    A word is predicted if greedy decoding gives all its tokens. Perplexity is exp of the mean nats of a last word. Both
    equal lambada_openai of lm-evaluation-harness, whose texts are passages with their punctuation. As there, the
    last word begins at the last space; a word after a line break is scored together with the word before it.

    Raises:
        ValueError: the file and line of invalid input.
    """

    def asked(row: dict[str, Any]) -> list[Question]:
        context, _, word = _text(row, "text").strip().rpartition(" ")
        if not context:
            raise ValueError("`text` has no space, so no word before the last one")
        return [_question(tokenizer, context, f" {word}", block_size)]

    found, nats = [], []
    for (one,), _ in _answered(model, tokenizer, path, asked, block_size, batch):
        found.append(one.greedy)
        nats.append(one.nats)
    per_word = Score(sum(nats), len(nats), bytes=1)  # the "tokens" are whole words
    return {"accuracy": fmean(found), "perplexity": per_word.perplexity, "examples": len(found)}


def hellaswag(
    model: nn.Module, tokenizer: Tokenizer, path: Path, *, block_size: int, batch: int | None = None
) -> dict[str, Any]:
    """Return how often the correct ending is chosen (arXiv 1905.07830), as hellaswag of lm-evaluation-harness.

    acc: by the smallest nats. acc_norm: by the smallest nats per character, without the space before the ending.

    Raises:
        ValueError: the file and line of invalid input.
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
    """Return the activity, its description, and the start of the next sentence, which is empty in WikiHow's texts."""
    start = row.get("ctx_b")
    if not isinstance(start, str):
        raise ValueError("there is no text in `ctx_b`")
    return _cleaned(f"{_text(row, 'activity_label')}: {_text(row, 'ctx_a')} {start.capitalize()}")


def _cleaned(text: str) -> str:
    """Remove WikiHow's marks: " [title]" ends a sentence, and all other brackets are dropped."""
    return _BRACKETED.sub("", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _endings(row: dict[str, Any]) -> list[str]:
    endings = row.get("endings")
    if not isinstance(endings, list) or len(endings) < 2 or not all(isinstance(e, str) and e for e in endings):
        raise ValueError("`endings` is not a list of at least two texts")
    return [_cleaned(ending) for ending in endings]


def _label(row: dict[str, Any], endings: list[str]) -> int:
    """Return the index of the correct ending, which the public files have as a number or as digits."""
    label = str(row.get("label", ""))
    if not label.isascii() or not label.isdigit() or int(label) >= len(endings):
        raise ValueError(f"`label` is {row.get('label')!r}, not the index of an ending, from 0")
    return int(label)


def _text(row: dict[str, Any], key: str) -> str:
    text = row.get(key)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"there is no text in `{key}`")
    return text


def _question(tokenizer: Tokenizer, context: str, continuation: str, block_size: int) -> Question:
    """Move white space from the end of the context to the continuation, because tokens begin with white space."""
    seen = context.rstrip()
    continuation = context[len(seen) :] + continuation
    return question(tokenizer.encode(seen), tokenizer.encode(continuation), block_size)


def _answered(
    model: nn.Module,
    tokenizer: Tokenizer,
    path: Path,
    questions: Callable[[dict[str, Any]], list[Question]],
    block_size: int,
    batch: int | None,
) -> Iterator[tuple[list[Answer], dict[str, Any]]]:
    """Yield the answers to the questions of each line, and the line; only the lines of a batch are in memory."""
    batch = batch or windows_that_fit(model, tokenizer, block_size)
    waiting: list[tuple[list[Question], dict[str, Any]]] = []
    for line in _checked(path, questions):
        waiting.append(line)
        if sum(len(asked) for asked, _ in waiting) >= batch:
            yield from _answer_lines(model, waiting, batch)
            waiting = []
    yield from _answer_lines(model, waiting, batch)


def _answer_lines(
    model: nn.Module, lines: list[tuple[list[Question], dict[str, Any]]], batch: int
) -> Iterator[tuple[list[Answer], dict[str, Any]]]:
    questions = [question for asked, _ in lines for question in asked]
    batches = (questions[i : i + batch] for i in range(0, len(questions), batch))
    answers = iter([one for questions in batches for one in answer(model, questions)])
    for asked, row in lines:
        yield list(islice(answers, len(asked))), row


def _checked(
    path: Path, questions: Callable[[dict[str, Any]], list[Question]]
) -> Iterator[tuple[list[Question], dict[str, Any]]]:
    """Yield the questions of each line, and the line. ValueError: the line and the problem."""
    number = 0
    for number, line in _lines(path):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("is not a JSON object")
            yield questions(row), row
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: is not JSON ({error.msg})") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    if number == 0:
        raise ValueError(f"{path}: has no lines, so there is nothing to score")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding="utf-8-sig") as file:
        try:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
        except UnicodeDecodeError:
            raise ValueError(f"{path}: is not UTF-8, the encoding of JSON lines") from None
