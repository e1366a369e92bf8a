"""Scores of published tasks equal independent computations, and wrong lines are named."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from gptexp.evaluation.lambada_hellaswag import _context
from support.trained_runs import Evaluate, opened


def jsonl(path: str, *rows: object) -> str:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def nats_of(run: str, context: str, continuation: str) -> tuple[float, bool]:
    """Nats of each token of the continuation, and whether each token was the most probable."""
    model, tokenizer = opened(run)
    before, after = tokenizer.encode(context).tolist(), tokenizer.encode(continuation).tolist()
    nats, greedy = 0.0, True
    with torch.no_grad():
        for i, token in enumerate(after):
            seen = [*before, *after[:i]]
            first = max(0, len(before) + len(after) - 17)  # the window that contains the whole text
            logits = model(torch.tensor([seen[first:]]))[0, -1]
            nats -= torch.log_softmax(logits, dim=-1)[token].item()
            greedy &= int(logits.argmax()) == token
    return nats, greedy


@pytest.mark.parametrize("batch", [[], ["--batch-size", "1"]])
def test_lambada_counts_last_words_predicted_by_greedy_decoding(evaluate: Evaluate, batch: list[str]) -> None:
    texts = [("A grey cat sleeps on", " the"), ("nobody answers. The baker", " counts"), ("she", " t")]
    file = jsonl("lambada.jsonl", *({"text": context + word} for context, word in texts), {"text": "The cat t\n"})
    found = evaluate("gpt", "--lambada", file, *batch)
    answers = [nats_of("gpt", context, word) for context, word in [*texts, ("The cat", " t")]]
    assert found["examples"] == 4
    assert found["accuracy"] == sum(greedy for _, greedy in answers) / 4
    assert found["perplexity"] == pytest.approx(math.exp(sum(nats for nats, _ in answers) / 4), rel=1e-5)
    assert found["task"] == "lambada"


def test_the_last_word_of_lambada_starts_at_the_last_space(evaluate: Evaluate) -> None:
    texts = {"The cat\nsleeps": ("The", " cat\nsleeps"), "The cat  sleeps": ("The cat", "  sleeps")}
    file = jsonl("lambada.jsonl", *({"text": text} for text in texts))
    found = evaluate("gpt", "--lambada", file)
    nats = sum(nats_of("gpt", *parts)[0] for parts in texts.values())
    assert found["perplexity"] == pytest.approx(math.exp(nats / 2), rel=1e-5)


SWAG = {"activity_label": "The cat", "ctx_a": "The sun [title] ", "ctx_b": "the CAT", "endings": ["a", "b"], "label": 0}


@pytest.mark.parametrize("right", [0, 1, 2])
def test_hellaswag_scores_the_published_texts_by_sum_and_by_character(evaluate: Evaluate, right: int) -> None:
    endings = ["the warm [step] oven", "a loaf.", " [substeps] as cats do!"]
    context, cleaned = "The cat: The sun.  The cat", ["the warm oven", "a loaf.", " as cats do!"]
    file = jsonl("swag.jsonl", {**SWAG, "endings": endings, "label": str(right)})
    found = evaluate("words", "--hellaswag", file)
    nats = [nats_of("words", context, f" {ending}")[0] for ending in cleaned]
    rates = [n / len(ending) for n, ending in zip(nats, cleaned, strict=True)]
    assert (found["acc"], found["acc_norm"]) == (nats.index(min(nats)) == right, rates.index(min(rates)) == right)


@pytest.mark.parametrize(
    ("row", "context"),
    [
        ({"activity_label": "Cooking", "ctx_a": "A man cuts.", "ctx_b": "then HE"}, "Cooking: A man cuts. Then he"),
        (
            {"activity_label": "Home", "ctx_a": "[header] How to rest [title] Lie down. [step] Sleep.", "ctx_b": ""},
            "Home: How to rest. Lie down. Sleep.",
        ),
    ],
)
def test_hellaswag_contexts_are_cleaned_as_in_lm_evaluation_harness(row: dict[str, str], context: str) -> None:
    assert _context(row) == context


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("lambada", {"txt": "a b"}, "there is no text in `text`"),
        ("lambada", {"text": "alone"}, "`text` has no space, so no word before the last one"),
        ("lambada", ["The cat"], "is not a JSON object"),
        ("lambada", {"text": "The ab雪"}, "character '雪'"),
        ("lambada", {"text": "The " + "t" * 40}, "has 41 tokens, more than block_size=16"),
        ("hellaswag", {**SWAG, "endings": ["a"]}, "`endings` is not a list of at least two"),
        ("hellaswag", {**SWAG, "label": 2}, "`label` is 2, not the index of an"),
        ("hellaswag", {**SWAG, "label": ""}, "`label` is '', not the index"),
        ("hellaswag", {k: v for k, v in SWAG.items() if k != "activity_label"}, "there is no text in `activity_label`"),
        ("hellaswag", {**SWAG, "ctx_b": None}, "there is no text in `ctx_b`"),
    ],
)
def test_a_wrong_line_of_a_task_is_named(
    evaluate: Evaluate, capsys: pytest.CaptureFixture[str], task: str, row: object, message: str
) -> None:
    right = {"lambada": {"text": "The cat"}, "hellaswag": SWAG}
    file = jsonl("wrong.jsonl", right[task], row)
    with pytest.raises(SystemExit) as stop:
        evaluate("words" if task == "hellaswag" else "gpt", f"--{task}", file)
    reported = capsys.readouterr().err
    assert stop.value.code == 2
    assert reported.startswith("error: wrong.jsonl, line 2: ")
    assert message in reported
    assert reported.count("\n") == 1
