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
from typing import Any, TypeVar

from torch import nn

from gptexp.evaluation.questions import Answer, Question, answers, question
from gptexp.objectives.lm import Score
from gptexp.tokenizers import Tokenizer

About = TypeVar("About")
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

    def asked(row: dict[str, Any]) -> tuple[list[Question], None]:
        context, _, word = _text(row, "text").strip().rpartition(" ")
        if not context:
            raise ValueError("`text` has no space, so no word before the last one")
        return [_question(tokenizer, context, f" {word}", block_size)], None

    found = [answer for (answer,), _ in _answered(model, tokenizer, _parsed(path, asked), batch)]
    per_word = Score(sum(answer.nats for answer in found), len(found), bytes=1)  # the "tokens" are whole words
    accuracy = fmean(answer.greedy for answer in found)
    return {"accuracy": accuracy, "perplexity": per_word.perplexity, "examples": len(found)}


def hellaswag(
    model: nn.Module, tokenizer: Tokenizer, path: Path, *, block_size: int, batch: int | None = None
) -> dict[str, Any]:
    """Return how often the correct ending is chosen (arXiv 1905.07830), as hellaswag of lm-evaluation-harness.

    acc: by the smallest nats. acc_norm: by the smallest nats per character, without the space before the ending.

    Raises:
        ValueError: the file and line of invalid input.
    """

    def asked(row: dict[str, Any]) -> tuple[list[Question], tuple[int, list[str]]]:
        context, endings = _context(row), _endings(row)
        questions = [_question(tokenizer, context, f" {ending}", block_size) for ending in endings]
        return questions, (_label(row, endings), endings)

    by_sum, by_character = [], []
    for found, (label, endings) in _answered(model, tokenizer, _parsed(path, asked), batch):
        nats = [answer.nats for answer in found]
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
    model: nn.Module, tokenizer: Tokenizer, lines: list[tuple[list[Question], About]], batch: int | None
) -> Iterator[tuple[list[Answer], About]]:
    """Yield the answers to the questions of each line, and what else is known of the line."""
    found = dict(answers(model, tokenizer, [question for asked, _ in lines for question in asked], batch))
    in_order = (found[i] for i in range(len(found)))
    for asked, about in lines:
        yield list(islice(in_order, len(asked))), about


def _parsed(path: Path, parse: Callable[[dict[str, Any]], About]) -> list[About]:
    """Return what a function makes of each line. ValueError: the line and the problem."""
    parsed = []
    for number, line in _lines(path):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("is not a JSON object")
            parsed.append(parse(row))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: is not JSON ({error.msg})") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    if not parsed:
        raise ValueError(f"{path}: has no lines, so there is nothing to score")
    return parsed


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding="utf-8-sig") as file:
        try:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
        except UnicodeDecodeError:
            raise ValueError(f"{path}: is not UTF-8, the encoding of JSON lines") from None
