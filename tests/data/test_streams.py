"""A stream is split by document, stops when both parts are full, and resumes after an interruption."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import xxhash

from gptexp.config.data import HuggingFaceConfig
from gptexp.config.tokenizer import CharConfig, TokenizerConfig
from gptexp.data import make_shards, shards, tokenizing
from gptexp.data.corpora.huggingface import HuggingFaceCorpus
from gptexp.data.prepare import prepare
from gptexp.data.split import DocumentSplit, first_bytes
from support.prepared import TOKENIZERS, text_of


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # small texts support few merges
        yield


def test_the_scored_text_of_a_stream_ends_at_a_whole_character() -> None:
    split = DocumentSplit(1.0, 4)
    pieces = [split.assign(text) for text in ("ab", "é猫", "x")]
    assert [piece and piece.text for piece in pieces] == ["ab", "é", None]
    split = DocumentSplit(1.0, 4)
    assert [piece and piece.text for piece in map(split.assign, ("abc", "猫", "x"))] == ["abc", None, None]


ROWS = [f"Story {i}: the café number {i * 7 % 13} opens.\n" + "It rains. " * (i % 5) for i in range(200)]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in ROWS))
    return path


def stream_config(path: Path, **settings: Any) -> HuggingFaceConfig:
    settings = {"val_bytes": 500, **settings}
    return HuggingFaceConfig(dataset="json", data_files=str(path), **settings)


def in_validation(row: str) -> bool:
    return xxhash.xxh3_64_intdigest(row.encode()) < 0.1 * 2**64


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda config: config.kind)
def test_a_stream_is_split_by_document_hash(rows: Path, tmp_path: Path, tokenizer: TokenizerConfig) -> None:
    prepared = prepare(stream_config(rows), tokenizer, tmp_path / "cache")
    train = [row for row in ROWS if not in_validation(row)]
    val = "".join(row for row in ROWS if in_validation(row)).encode()[:500].decode(errors="ignore")
    assert len("".join(row for row in ROWS if in_validation(row)).encode()) > 500
    assert text_of(prepared, "train") == "".join(train)
    assert text_of(prepared, "val") == val
    assert prepared.text_sha256 == hashlib.sha256(val.encode()).hexdigest()
    if prepared.tokenizer.eot is not None:
        assert int((prepared.train.read(0, 10**6) == prepared.tokenizer.eot).sum()) == len(train) - 1


@pytest.mark.parametrize("tokenizer", TOKENIZERS[:2], ids=lambda config: config.kind)
def test_a_stream_stops_when_both_parts_are_full(
    rows: Path, tmp_path: Path, tokenizer: TokenizerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizing, "BATCH", 50)
    read: list[Any] = []
    original = HuggingFaceCorpus._text

    def reading(corpus: HuggingFaceCorpus, row: dict[str, Any]) -> str:
        read.append(row)
        return original(corpus, row)

    monkeypatch.setattr(HuggingFaceCorpus, "_text", reading)
    prepared = prepare(stream_config(rows, max_tokens=300, val_bytes=60), tokenizer, tmp_path / "cache")
    assert len(prepared.train) == 300
    assert len(read) < (2 if prepared.tokenizer.eot is None else 1) * 40
    assert prepared.train_text_bytes == len(text_of(prepared, "train").encode())
    train = "".join(row for row in ROWS if not in_validation(row))
    assert train.startswith(text_of(prepared, "train"))
    if prepared.tokenizer.eot is None:
        val = first_bytes("".join(row for row in ROWS if in_validation(row)), 60)
        assert set(prepared.tokenizer.state_dict()["alphabet"]) == set(train[:300] + val)


@pytest.mark.parametrize("max_tokens", [20, 100, 300])
def test_characters_beyond_the_tokens_that_are_used_need_no_token(tmp_path: Path, max_tokens: int) -> None:
    path = tmp_path / "rows.jsonl"
    texts = [f"Story {i}: abc" for i in range(50)] + ["Zebra Qux!"] * 50
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    prepared = prepare(stream_config(path, val_bytes=60, max_tokens=max_tokens), CharConfig(), tmp_path / "cache")
    assert text_of(prepared, "train") == "".join(text for text in texts if not in_validation(text))[:max_tokens]


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda config: config.kind)
@pytest.mark.parametrize("fail_at", [1, 3, 9])
def test_an_interrupted_stream_resumes_to_the_same_result(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: TokenizerConfig, fail_at: int
) -> None:
    monkeypatch.setattr(tokenizing, "BATCH", 100)
    monkeypatch.setattr(shards, "SHARD_TOKENS", 128)
    whole = prepare(stream_config(rows), tokenizer, tmp_path / "whole")
    original, calls, first_docs = make_shards._save_progress, [], []

    def failing(*arguments: Any) -> None:
        original(*arguments)
        calls.append(1)
        if len(calls) == fail_at:
            raise KeyboardInterrupt

    monkeypatch.setattr(make_shards, "_save_progress", failing)
    with pytest.raises(KeyboardInterrupt):
        prepare(stream_config(rows), tokenizer, tmp_path / "cache")
    assert len(calls) == fail_at
    stream_pieces = make_shards._stream_pieces

    def watched(*arguments: Any) -> Any:
        for piece in stream_pieces(*arguments):
            first_docs.append(piece.text)
            yield piece

    monkeypatch.setattr(make_shards, "_stream_pieces", watched)
    resumed = prepare(stream_config(rows), tokenizer, tmp_path / "cache")
    assert first_docs[0] != ROWS[0]  # it did not restart
    assert resumed.train.shards == whole.train.shards
    assert resumed.val.shards == whole.val.shards
    numbers = ("fingerprint", "text_sha256", "val_text_bytes", "train_text_bytes", "documents")
    assert [getattr(resumed, name) for name in numbers] == [getattr(whole, name) for name in numbers]
    assert not list(resumed.folder.glob(".*")) + list(resumed.folder.glob("progress.json"))
