"""Scores of texts with a sliding window equal independent computations."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gptexp.commands import lm_eval
from gptexp.compose.composition import compose
from gptexp.data.prepare import prepare
from gptexp.evaluate import main
from gptexp.evaluation.scoring import score_stream, score_tokens, sliding_windows
from support.runs import TINY, command, story
from support.trained_runs import CHINESE, PLAIN, TEXT, Evaluate, opened


@pytest.mark.parametrize("block_size", [1, 2, 7])
def test_every_token_except_the_first_is_scored_once_with_enough_context(block_size: int) -> None:
    for stride in range(1, block_size + 1):
        for n in range(30):
            pieces = np.split(np.arange(n), [n // 3, n // 3, n // 2])
            windows = list(sliding_windows(pieces, block_size, stride))
            new = [token for tokens, count in windows for token in tokens[-count:].tolist()]
            assert new == list(range(1, n))
            assert all(len(tokens) <= block_size + 1 for tokens, _ in windows)
            assert all(len(tokens) - count >= block_size - stride + 1 for tokens, count in windows[1:])
            assert all(np.array_equal(tokens, np.arange(tokens[0], tokens[-1] + 1)) for tokens, _ in windows)


@pytest.mark.parametrize("batch", [None, 3])
def test_a_stride_of_block_size_equals_validation(evaluate: Evaluate, batch: int | None) -> None:
    """The windows, batches and sums are the same, so the numbers are exactly equal."""
    model, tokenizer = opened("gpt")
    data = prepare(compose([*TINY, "data.path=story.txt"]).data, tokenizer, Path("data/cache"))
    tokens = np.asarray(data.val.read(0, len(data.val)))
    validated = score_tokens(model, tokenizer, data.val, block_size=16, batch=batch)
    pieces = np.split(tokens, [5, 100])
    assert score_stream(model, tokenizer, pieces, block_size=16, stride=16, batch=batch) == validated
    Path("val.txt").write_text(tokenizer.decode(tokens.tolist()), encoding="utf-8")
    through_the_door = evaluate("gpt", "--text", "val.txt", "--stride", "16")
    own = evaluate("gpt")
    assert {
        k: own[k] for k in ("loss", "bpb", "perplexity", "nats", "tokens", "bytes")
    }.items() <= through_the_door.items()
    assert through_the_door["text_sha256"] == own["text_sha256"]


def test_a_bigram_has_the_same_score_with_every_stride(evaluate: Evaluate) -> None:
    """A bigram sees one token, so context does not matter, and its table gives the sum without windows."""
    model, tokenizer = opened("bigram")
    tokens = torch.from_numpy(tokenizer.encode(story(31))).long()
    table = torch.log_softmax(model.get_parameter("wte.weight").double(), dim=-1)
    nats = -table[tokens[:-1], tokens[1:]].sum().item()
    for stride in (1, 5, 8, 16):
        found = evaluate("bigram", "--text", "some.txt", "--stride", str(stride), "--batch-size", "7")
        assert found["nats"] == pytest.approx(nats, rel=1e-6)
        assert found["tokens"] == len(tokens) - 1


def test_a_small_stride_guarantees_its_context(evaluate: Evaluate) -> None:
    """Stride 1: each token is scored in a separate forward pass over at most the 16 tokens before it."""
    model, tokenizer = opened("gpt")
    tokens = torch.from_numpy(tokenizer.encode(PLAIN)).long()
    nats = 0.0
    with torch.no_grad():
        for i in range(1, len(tokens)):
            nats -= torch.log_softmax(model(tokens[None, max(0, i - 16) : i])[0, -1], dim=-1)[tokens[i]].item()
    assert evaluate("gpt", "--text", "plain.txt", "--stride", "1")["nats"] == pytest.approx(nats, rel=1e-6)


def test_perplexities_and_bits_equal_those_of_the_counts(evaluate: Evaluate) -> None:
    found = evaluate("words", "--text", "short.txt")
    _, tokenizer = opened("words")
    tokens = tokenizer.encode(TEXT)
    assert (found["stride"], found["block_size"]) == (8, 16)
    assert found["tokens"] == len(tokens) - 1
    assert found["bytes"] == len(TEXT.encode()) - len(tokenizer.decode_bytes(tokens[:1]))
    assert found["words"] == len(TEXT.split()) == 17
    assert found["perplexity"] == pytest.approx(math.exp(found["nats"] / found["tokens"]))
    assert found["word_perplexity"] == pytest.approx(math.exp(found["nats"] / 17))
    assert found["bpb"] == pytest.approx(found["nats"] / math.log(2) / found["bytes"])
    assert found["text_sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()


def test_byte_order_marks_line_endings_and_pieces_change_no_score(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = evaluate("gpt", "--text", "some.txt")
    Path("dos.txt").write_bytes(b"\xef\xbb\xbf" + story(31).replace("\n", "\r\n").encode())
    Path("gb.txt").write_bytes(story(31).encode("gb18030"))
    monkeypatch.setattr("gptexp.data.corpora._reading.cut_pieces", lambda chunks: (c for t in chunks for c in t))
    for arguments in (["dos.txt"], ["gb.txt", "--encoding", "gb18030"]):  # and one piece per character
        assert evaluate("gpt", "--text", *arguments) == found | {"text": arguments[0]}


@pytest.mark.filterwarnings("always::UserWarning")
@pytest.mark.parametrize("encoding", ["gb18030", "big5", "utf-16-le"])
def test_the_encoding_of_a_text_is_recognized(
    evaluate: Evaluate, capsys: pytest.CaptureFixture[str], encoding: str
) -> None:
    Path("utf8.txt").write_text(CHINESE, encoding="utf-8")
    Path("old.txt").write_bytes(CHINESE.encode(encoding))
    found = evaluate("words", "--text", "utf8.txt")
    told = f"notice: --encoding=auto: read as {encoding}: old.txt; if the text is wrong, set --encoding=\n"
    for arguments, notice in {(): told, ("--encoding", "auto"): told, ("--encoding", encoding): ""}.items():
        main(["words", "--text", "old.txt", "--json", "--logs", ".", *arguments])
        out, error = capsys.readouterr()
        assert json.loads(out) == found | {"text": "old.txt"}
        assert error == notice


def test_a_text_shorter_than_a_window_is_scored_completely(evaluate: Evaluate) -> None:
    Path("ab.txt").write_text("The", encoding="utf-8")
    found = evaluate("gpt", "--text", "ab.txt", "--stride", "3")
    assert (found["tokens"], found["words"], found["bytes"]) == (2, 1, 2)


def test_allowed_special_tokens_are_context_and_are_not_scored(evaluate: Evaluate) -> None:
    """Nats from one pass over the tokens, without those of the special token."""
    Path("two.txt").write_text("A cat<|endoftext|>the oven", encoding="utf-8")
    model, tokenizer = opened("words")
    tokens = torch.tensor(tokenizer.encode_special("A cat<|endoftext|>the oven").tolist())
    assert (tokens == tokenizer.eot).sum() == 1
    log_p = model(tokens[None, :-1])[0].log_softmax(-1)[range(len(tokens) - 1), tokens[1:]]
    found = evaluate("words", "--text", "two.txt", "--allow-special")
    assert found["nats"] == pytest.approx(-log_p[tokens[1:] != tokenizer.eot].sum().item(), rel=1e-5)
    assert found["tokens"] == len(tokens) - 2
    assert found["bytes"] == len("A catthe oven") - tokenizer.token_bytes[tokens[0]]
    plain = evaluate("words", "--text", "two.txt")
    assert plain["tokens"] > found["tokens"]
    assert plain["bytes"] == found["bytes"] + len("<|endoftext|>")
    Path("ends.txt").write_text("<|endoftext|>" * 3, encoding="utf-8")
    with pytest.raises(SystemExit):
        evaluate("words", "--text", "ends.txt", "--allow-special")


def test_the_result_is_one_complete_line(runs: Path) -> None:
    done = command("evaluate", "gpt", "--text", "some.txt", "--stride", "4", cwd=runs)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("perplexity ")
    assert " per token, " in done.stdout
    assert done.stdout.endswith(" bytes · stride 4 of 16\n")
    assert done.stdout.count("\n") == 1


WRONG = [
    (["--text", "nowhere.txt"], "nowhere.txt: no such file"),
    (["--text", "gpt"], "gpt: is a folder; give one text file"),
    (["--text", "empty.txt"], "empty.txt: is empty, so there is nothing to score"),
    (["--text", "mark.txt"], "mark.txt: has 0 tokens, and the first is only context; give at least 2"),
    (["--text", "one.txt"], "one.txt: has 1 tokens, and the first is only context; give at least 2"),
    (["--allow-special"], "--allow-special: requires --text FILE"),
    (["--text", "some.txt", "--allow-special"], "some.txt: --allow-special: tokenizer=char has no <|endoftext|>"),
    (["--text", "some.txt", "--stride", "0"], "--stride=0: too small, give at least 1"),
    (["--text", "some.txt", "--stride", "17"], "--stride=17: must be from 1 to 16, the model's block_size"),
    (["--stride", "8"], "--stride=8: requires --text FILE"),
    (["--encoding", "utf-8"], "--encoding=utf-8: requires --text FILE"),
    (["--text", "some.txt", "--encoding", "utf-9"], "--encoding=utf-9: unknown text encoding; try utf-8"),
    (["--text", "some.txt", "--encoding", "base64"], "--encoding=base64: unknown text encoding; try utf-8"),
    (["--text", "/dev/null"], "/dev/null: is not a regular file, and a text is read several times; write it to a file"),
    (
        ["--text", "some.txt", "--max-tokens", "9"],
        "--max-tokens=9: applies only to the corpus of the run, not to some.txt",
    ),
    (
        ["--text", "latin.txt", "--encoding", "utf-8"],
        "latin.txt: byte 3 (line 1) can't be read as --encoding=utf-8; it looks like",
    ),
    (
        ["--text", "damaged.txt"],
        "damaged.txt: byte 6 (line 1) can't be read as --encoding=utf-8; the text around it is",
    ),
    (["--text", "new.txt"], "new.txt: character '雪' (U+96EA) at line 2, column 3: not among the "),
    (["--lambada", "some.txt"], "some.txt, line 1: is not JSON (Expecting value)"),
    (["--hellaswag", "mark.txt"], "mark.txt: has no lines, so there is nothing to score"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_wrong_input_gives_a_one_line_error(
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(runs)
    files = {"empty.txt": b"", "mark.txt": b"\xef\xbb\xbf", "one.txt": b"T", "latin.txt": b"caf\xe9 ol\xe9"}
    files["damaged.txt"] = "雪花".encode() + b"\xff" + CHINESE.encode()
    for name, content in (files | {"new.txt": "The\nca雪".encode()}).items():
        Path(name).write_bytes(content)
    with pytest.raises(SystemExit) as stop:
        main(["gpt", *arguments])
    assert stop.value.code == 2
    reported = capsys.readouterr()
    assert reported.out == ""
    assert reported.err.startswith(f"error: {message}")
    assert reported.err.count("\n") == 1


def test_the_harness_is_named_where_it_is_missing(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs)
    for module, call, line in (("evaluate", main, ["gpt", "--tasks", "x"]), ("lm_eval", lm_eval.main, ["ls", "tasks"])):
        monkeypatch.setattr(f"gptexp.commands.{module}.find_spec", lambda name: None)
        with pytest.raises(SystemExit) as stop:
            call(line)
        assert stop.value.code == 2
        assert 'pip install -e ".[lm-eval]"' in capsys.readouterr().err


def test_an_error_beyond_the_first_piece_names_its_line(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("far.txt").write_text("The cat\nThe cat\n\nThe 雪", encoding="utf-8")
    monkeypatch.setattr(
        "gptexp.data.corpora._reading.cut_pieces", lambda chunks: (s + "\n" for t in chunks for s in t.split("\n"))
    )
    with pytest.raises(SystemExit):
        main(["gpt", "--text", "far.txt"])
    assert "error: far.txt, from line 4 on: character '雪' (U+96EA) at line 1, column 5" in capsys.readouterr().err


def test_a_missing_text_file_is_reported_before_torch_is_imported(runs: Path) -> None:
    code = (
        "import sys\nfrom gptexp.evaluate import main\n"
        "try: main(['gpt', '--text', 'nowhere.txt'])\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=runs, capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("False\n", "error: nowhere.txt: no such file\n")
