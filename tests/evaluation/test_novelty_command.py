"""gptexp novelty measures a trained model against the text that it was trained on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptexp.commands.novelty import main, show
from gptexp.compose.composition import compose
from gptexp.data.novelty import measure
from gptexp.data.prepare import prepare
from gptexp.training.experiment import run_experiment as run_job
from support.prepared import text_of
from support.runs import TINY
from support.trained_runs import opened

SMALL = ["--samples", "3", "--tokens", "40"]
Measure = Callable[..., dict[str, Any]]


@pytest.fixture
def here(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs)


@pytest.fixture
def measured(here: None, capsys: pytest.CaptureFixture[str]) -> Measure:
    """Run the command in this process with these arguments; return its JSON output."""

    def run(*arguments: str) -> dict[str, Any]:
        main([*arguments, "--json", "--logs", "."])
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


def texts_of(run: str) -> tuple[str, str]:
    """The training and the validation text of a run of story.txt."""
    data = prepare(compose([*TINY, "data.path=story.txt"]).data, opened(run)[1], Path("data/cache"))
    return text_of(data, "train"), text_of(data, "val")


@pytest.mark.parametrize("run", ["gpt", "words", "bigram"])
def test_held_out_text_and_spans_equal_a_direct_search(measured: Measure, run: str) -> None:
    found = measured(run, *SMALL)
    train, val = texts_of(run)
    for kind in ("model", "held_out"):
        assert len(found["texts"][kind]) == 3
        for one in found["texts"][kind]:
            text, span = one["text"], one["span"]
            longest = max(j - i for i in range(len(text)) for j in range(i, len(text) + 1) if text[i:j] in train)
            assert one["values"]["longest_span"] == len(span["text"]) == longest
            assert train.startswith(span["text"], span["offset"])
            assert span["text"] in text
    assert all(one["text"] in val for one in found["texts"]["held_out"])
    starts = [val.index(one["text"]) for one in found["texts"]["held_out"]]
    assert starts == sorted(starts)


def test_means_are_those_of_the_texts_with_intervals(measured: Measure) -> None:
    found = measured("gpt", *SMALL)
    for name, means in found["means"].items():
        for kind, mean in means.items():
            values = [v for one in found["texts"][kind] if (v := one["values"][name]) is not None]
            assert mean["n"] == len(values)
            assert not values or mean["mean"] == pytest.approx(sum(values) / len(values))
            assert len(values) < 2 or mean["low"] <= mean["mean"] <= mean["high"]
    assert (found["samples"], found["tokens"], found["seed"], found["step"]) == (3, 40, 1, 20)


def test_the_same_seed_gives_the_same_result(measured: Measure) -> None:
    first = measured("gpt", *SMALL, "--seed", "5")
    assert measured("gpt", *SMALL, "--seed", "5") == first
    other = measured("gpt", *SMALL, "--seed", "6", "--temperature", "1.5", "--top-k", "0")
    assert other["texts"]["model"][0]["text"] != first["texts"]["model"][0]["text"]
    assert other["texts"]["held_out"] == first["texts"]["held_out"]


def test_the_table_shows_both_columns_and_the_longest_spans(here: None, capsys: pytest.CaptureFixture[str]) -> None:
    main(["gpt", "--samples", "7", "--tokens", "100", "--logs", "."])
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].split() == ["model", "held-out", "text"]
    assert any(line.startswith("longest copied span, characters") and line.count("±") == 2 for line in lines)
    assert any(line.startswith("new 13-grams of characters") for line in lines)
    assert len(lines[lines.index(next(line for line in lines if line.startswith("longest spans"))) :]) == 1 + 5 + 1
    assert lines[-1].startswith("notice: the validation text is short; held-out texts overlap")
    main(["words", *SMALL, "--logs", "."])
    assert "of characters" not in capsys.readouterr().out


def test_hostile_text_is_shown_literally(capsys: pytest.CaptureFixture[str]) -> None:
    """Markup, terminal escapes and characters that reverse a line change nothing on the terminal."""
    text = "[bold]\x1b[31mred\u202e \x00 "
    texts = {kind: measure([text, "", text * 2], [text * 9]) for kind in ("model", "held_out")}
    show(texts, by_character=True)
    out = capsys.readouterr().out
    assert not {"\x1b", "\u202e", "\x00"} & {*out}
    assert out.splitlines()[-2].startswith("    3     36            0  “[bold]\\x1b[31mred\\u202e \\x00 [bold]")
    assert out.splitlines()[-1].startswith("    1     18            0  “[bold]")  # and none of the empty text


WRONG = [
    (["gpt", "--samples", "0"], "--samples=0: must be at least 1"),
    (["gpt", "--tokens", "0"], "--tokens=0: must be at least 1"),
    (["gpt", "--temperature", "-1"], "--temperature=-1.0: must be a number from 0"),
    (["gpt", "--top-k", "-1"], "--top-k=-1: must be at least 1, or 0 for all tokens"),
    (["nowhere"], "nowhere: no such run"),
    (
        ["gpt", "--tokens", "586"],
        "--tokens=586: the validation text has 600 tokens, and a sample needs 602 of them, 16",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_wrong_input_gives_a_one_line_error(
    here: None, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert error_of(capsys, *arguments, "--logs", ".").startswith(f"error: {message}")


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*arguments])
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    error = printed.err.splitlines()[-1]
    assert printed.err.count("error: ") == 1
    return error


def test_a_missing_changed_or_untrusted_corpus_gives_one_error(
    here: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "gpt: is outside --logs logs" in error_of(capsys, "gpt", *SMALL)
    text = Path("story.txt").read_text(encoding="utf-8")
    try:
        Path("story.txt").write_text(text + "One more line.\n", encoding="utf-8")
        message = "gpt: its training text has changed since it was trained (data.kind=text data.path=story.txt)"
        assert message in error_of(capsys, "gpt", *SMALL, "--logs", ".", "--cache", "other")
        Path("story.txt").unlink()
        assert "data.path=story.txt: no text file found" in error_of(capsys, "gpt", *SMALL, "--logs", ".")
    finally:
        Path("story.txt").write_text(text, encoding="utf-8")


@pytest.mark.slow
def test_a_memorized_page_is_found_as_one_span(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """debug=overfit: the training text is one page. A greedy text of two pages contains all of it."""
    lines = [f"{i * i * 37 % 1009} {word} {i * i * 91 % 887}." for i, word in enumerate(WORDS.split() * 80)]
    Path("page.txt").write_text(" ".join(lines), encoding="utf-8")
    settings = ["data=text", "data.path=page.txt", "trainer=cpu", "debug=overfit"]
    sizes = ["model.n_layer=2", "model.n_head=2", "model.n_embd=64", "model.block_size=64", "optimizer.lr=1e-2"]
    run_job(compose([*settings, *sizes, "data.max_tokens=400", "callbacks.samples.tokens=0"]), Path("page"))
    capsys.readouterr()
    main(["page", "--samples", "1", "--tokens", "850", "--temperature", "0", "--logs", ".", "--json"])
    found = json.loads(capsys.readouterr().out)["texts"]["model"][0]
    page = " ".join(lines)[:400]
    assert found["span"] == {"text": page, "offset": 0}


WORDS = "baker loaf oven thief crow bell cat café market letter"
