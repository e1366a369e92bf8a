"""Texts without breaks: too long words are cut, identically for every tokenizer and in every piece."""

from __future__ import annotations

import _thread
import json
import random
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken

from gptexp.config.data import LabelledConfig, TextConfig
from gptexp.config.tokenizer import BPEConfig, ByteConfig, GPT2TokenizerConfig
from gptexp.data.cache import digest
from gptexp.data.corpora._reading import cut_pieces
from gptexp.data.labelled import prepare_labelled
from gptexp.data.prepare import prepare
from gptexp.tokenizers import Tokenizer, bpe, gpt2, load_tokenizer, train_tokenizer
from gptexp.tokenizers.byte_pair import GPT2_SPLIT
from gptexp.tokenizers.long_runs import LONGEST, cut_runs, last_boundary

RUNS = {
    "letters": "ACGT" * 800,
    "chinese": "他们说哈利波特" * 500,
    "digits": "31415926" * 300,
    "signs": "=-" * 900,
    "spaces": " " * 3000,
    "lines": "\n \t" * 700,
}
ORDINARY = "It's  a line,\n\n  indented\t\tby   1234 spaces … 'tis 哈利\x1c x\x85 y\n" * 40
ORDINARY += "=" * 200 + "\n" + " " * 300


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # small texts support few merges
        yield


@pytest.fixture(scope="module")
def tokenizers() -> list[Tokenizer]:
    learned = train_tokenizer(BPEConfig(vocab_size=400), [ORDINARY])
    files = load_tokenizer({"kind": "files", **learned.vocabulary().as_plain()})
    return [train_tokenizer(GPT2TokenizerConfig()), learned, files]


@pytest.mark.parametrize("name", RUNS)
def test_a_text_without_breaks_is_cut_every_thousand_characters(tokenizers: list[Tokenizer], name: str) -> None:
    run = RUNS[name]
    text = "before" + ("," if name != "signs" else "") + run + "after"
    start = text.index(run) if name != "letters" else 7
    parts = cut_runs(text)
    assert "".join(parts) == text
    assert len(parts[0]) == start + LONGEST
    assert [len(part) for part in parts[1:-1]] == [LONGEST] * (len(parts) - 2)
    for tokenizer in tokenizers:
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == text
        assert tokens.tolist() == [token for part in parts for token in tokenizer.encode(part).tolist()]
        assert tokenizer.cuts_runs(text)


@pytest.mark.parametrize("text", [ORDINARY, *(f"so {run[: LONGEST - 2]} on" for run in RUNS.values())])
def test_ordinary_text_keeps_the_tokens_of_gpt2(text: str) -> None:
    ours = train_tokenizer(GPT2TokenizerConfig())
    reference = tiktoken.Encoding("gpt2", pat_str=GPT2_SPLIT, mergeable_ranks=gpt2._ranks(), special_tokens={})
    assert cut_runs(text) == [text]
    assert ours.encode(text).tolist() == reference.encode(text)


def test_ordinary_text_keeps_the_merges_of_the_trainer() -> None:
    from pydoc_data.topics import topics

    from tokenizers import Tokenizer as Trainer
    from tokenizers import models, pre_tokenizers, trainers

    text = "\n".join(topics[name] for name in sorted(topics)[:25])
    plain = Trainer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=[], show_progress=False)
    plain.train_from_iterator([text], trainer)
    expected = bpe._to_ids(json.loads(plain.to_str())["model"]["merges"])
    ours = train_tokenizer(BPEConfig(vocab_size=401), [text])
    assert ours.state_dict()["merges"] == [list(merge) for merge in expected]


def test_texts_without_breaks_are_learned_and_encoded(tokenizers: list[Tokenizer]) -> None:
    dna = "".join(random.Random(1).choices("ACGT", k=100_000))
    for text in (dna, " " * 1_000_000):
        tokenizer = train_tokenizer(BPEConfig(vocab_size=300), [text])
        assert tokenizer.decode(tokenizer.encode(text)) == text
    spaces = " " * 1_600_000 + "x"
    for tokenizer in tokenizers:
        assert tokenizer.decode(tokenizer.encode(spaces)) == spaces


@pytest.mark.parametrize("seed", range(4))
def test_pieces_change_no_token_of_a_text_without_breaks(tokenizers: list[Tokenizer], seed: int) -> None:
    some = random.Random(seed)
    parts = ["ACGT", "哈利", "123", "!?", "don't", "x's", "'", "\n", "  "]
    text = "".join(some.choice(parts[: 9 if seed % 2 else 7]) * some.choice([1, 2, 40, 2000]) for _ in range(30))
    expected = [tokenizer.encode(text).tolist() for tokenizer in tokenizers]
    for size in (300, 777, 5000):
        pieces = list(cut_pieces([text[i : i + 37] for i in range(0, len(text), 37)], size))
        assert "".join(pieces) == text
        assert max(map(len, pieces)) <= max(2 * size, LONGEST) + LONGEST + 200
        for tokenizer, tokens in zip(tokenizers, expected, strict=True):
            assert [token for piece in pieces for token in tokenizer.encode(piece).tolist()] == tokens


def test_a_contraction_is_not_a_boundary() -> None:
    assert last_boundary("!!'s") == 0
    assert last_boundary("abc'") == 3


def test_special_tokens_stay_whole_where_a_text_without_breaks_is_cut(tokenizers: list[Tokenizer]) -> None:
    text = "<|endoftext|>".join(["ACGT" * 7] * 50)
    expected = tokenizers[0].encode_special(text).tolist()
    for size in range(100, 120):
        pieces = list(cut_pieces([text[i : i + 37] for i in range(0, len(text), 37)], size))
        assert len(pieces) > 2
        assert [token for piece in pieces for token in tokenizers[0].encode_special(piece).tolist()] == expected


def test_the_data_fingerprint_includes_the_cutting_of_long_texts(tmp_path: Path) -> None:
    for name, cut in (("ordinary", False), ("long", True)):
        (tmp_path / f"{name}.txt").write_text(ORDINARY + RUNS["letters"] * cut, encoding="utf-8")
        rows = [{"text": f"row {i} {RUNS['letters'] * cut}", "label": i % 2} for i in range(20)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        text = TextConfig(path=str(tmp_path / f"{name}.txt"))
        labelled = LabelledConfig(path=str(tmp_path / f"{name}.jsonl"))
        sources: list[tuple[Any, Any]] = [(prepare, text), (prepare_labelled, labelled)]
        for make, config in sources:
            data: Any = make(config, GPT2TokenizerConfig(), tmp_path / "cache")
            source = json.loads((data.folder / "manifest.json").read_text())["source"]
            assert (data.fingerprint == digest([source, data.tokenizer.fingerprint])) is not cut
        plain = prepare(text, ByteConfig(), tmp_path / "cache")
        source = json.loads((plain.folder / "manifest.json").read_text())["source"]
        assert plain.fingerprint == digest([source, plain.tokenizer.fingerprint])  # bytes have no words


def test_ctrl_c_ends_the_training_of_a_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    release, finished = threading.Event(), threading.Event()

    def deaf(self: Any, text: Iterator[str], trainer: Any) -> None:
        """A native call that has read its text and does not handle signals."""
        list(text)
        threading.Timer(0.05, _thread.interrupt_main).start()
        until = time.monotonic() + 2
        while not release.is_set() and time.monotonic() < until:
            try:
                release.wait(0.05)
            except KeyboardInterrupt:
                continue
        finished.set()

    from tokenizers import Tokenizer as Trainer

    class Deaf:
        pre_tokenizer: Any = None
        train_from_iterator = deaf

        def __init__(self, model: Any) -> None:
            self.to_str = Trainer(model).to_str

    monkeypatch.setattr("tokenizers.Tokenizer", Deaf)
    with pytest.raises(KeyboardInterrupt):
        train_tokenizer(BPEConfig(vocab_size=300), ["some text"])
    assert not finished.is_set()
    release.set()


def test_an_error_during_tokenizer_training_is_raised() -> None:
    def broken() -> Iterator[str]:
        yield "some text"
        raise ValueError("a.txt: can't be read")

    with pytest.raises(ValueError, match=r"a\.txt: can't be read"):
        train_tokenizer(BPEConfig(vocab_size=300), broken())
    assert np.array_equal(train_tokenizer(BPEConfig(vocab_size=257), ["ab"]).encode("ab"), [97, 98])
