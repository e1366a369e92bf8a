"""A text is split, tokenized and cached, and the cache is verified."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptexp.config.data import TextConfig
from gptexp.config.tokenizer import BPEConfig, ByteConfig, CharConfig, TokenizerConfig
from gptexp.data import make_shards, manifest, shards, tokenizing
from gptexp.data.prepare import prepare
from gptexp.data.split import by_characters
from gptexp.tokenizers import load_tokenizer
from support.prepared import TOKENIZERS, text_of

BOOKS = [
    "\ufeff" + "The first book tells of a café — and of 猫.\r\n" * 9,
    "The second one doesn't.\r" * 7 + "It ends here",
    "The third 🐱 has the last word, or nearly.\n" * 11,
]


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # small texts support few merges
        yield


@pytest.fixture
def books(tmp_path: Path) -> Path:
    folder = tmp_path / "books"
    folder.mkdir()
    for number, book in enumerate(BOOKS):
        (folder / f"{number}.txt").write_text(book, encoding="utf-8", newline="")
    return folder


def whole_text() -> str:
    return "".join(BOOKS).replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n")


def text_config(path: Path, **settings: Any) -> TextConfig:
    return TextConfig(**{"path": str(path), "val_bytes": None, **settings})


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda config: config.kind)
@pytest.mark.parametrize("val_bytes", [None, 1, 58, 59, 10**6])
def test_validation_is_the_last_tenth_of_the_text_in_whole_characters(
    books: Path, tmp_path: Path, tokenizer: TokenizerConfig, val_bytes: int | None
) -> None:
    text = whole_text()
    n_train = len(text) * 9 // 10
    expected = text[n_train:].encode()[:val_bytes].decode(errors="ignore")
    if val_bytes == 1:
        with pytest.raises(ValueError, match=r"the validation part has [01] tokens, at least 2"):
            prepare(text_config(books, val_bytes=1), tokenizer, tmp_path / "cache")
        return
    prepared = prepare(text_config(books, val_bytes=val_bytes), tokenizer, tmp_path / "cache")
    assert text_of(prepared, "train") == text[:n_train]
    assert text_of(prepared, "val") == expected
    assert prepared.text_sha256 == hashlib.sha256(expected.encode()).hexdigest()
    assert prepared.val_text_bytes == len(expected.encode())
    assert prepared.train_text_bytes == len(text[:n_train].encode())
    assert prepared.documents == 3


def test_the_scored_text_is_independent_of_tokenizer_and_block_size(books: Path, tmp_path: Path) -> None:
    seen = set()
    for tokenizer in TOKENIZERS:
        for block_size in (4, 16):
            prepared = prepare(text_config(books, val_bytes=61), tokenizer, tmp_path / "cache", block_size=block_size)
            tokens = prepared.val.read(0, len(prepared.val))
            counted = sum(len(prepared.tokenizer.decode_bytes([token])) for token in tokens.tolist())
            assert counted == prepared.val_text_bytes == int(prepared.tokenizer.token_bytes[tokens].sum())
            seen.add((prepared.text_sha256, counted))
    assert len(seen) == 1
    assert len(list((tmp_path / "cache").glob("*/manifest.json"))) == len(TOKENIZERS)


def test_end_of_text_appears_only_between_documents(tmp_path: Path) -> None:
    for name, book in {"1.txt": "abc", "2.txt": "", "3.txt": "def", "4.txt": "ghij"}.items():
        (tmp_path / name).write_text(book)
    prepared = prepare(text_config(tmp_path, val_fraction=0.4), ByteConfig(), tmp_path / "cache")
    assert prepared.train.read(0, 99).tolist() == [97, 98, 99, 256, 100, 101, 102]
    assert prepared.val.read(0, 99).tolist() == [103, 104, 105, 106]
    prepared = prepare(text_config(tmp_path, val_fraction=0.55), ByteConfig(), tmp_path / "cache")
    assert prepared.train.read(0, 99).tolist() == [97, 98, 99, 256, 100]
    assert prepared.val.read(0, 99).tolist() == [101, 102, 256, 103, 104, 105, 106]


@pytest.mark.parametrize(("limit", "expected"), [(3, "abc"), (4, "abc"), (5, "abc|d"), (99, "abc|def")])
def test_max_tokens_limits_training_tokens_and_never_ends_at_end_of_text(
    tmp_path: Path, limit: int, expected: str
) -> None:
    for name, book in {"1.txt": "abc", "2.txt": "def", "3.txt": "ghij"}.items():
        (tmp_path / name).write_text(book)
    config = text_config(tmp_path, val_fraction=0.4, max_tokens=limit)
    prepared = prepare(config, ByteConfig(), tmp_path / "cache")
    assert prepared.train.read(0, 99).tolist() == [256 if c == "|" else ord(c) for c in expected]
    assert text_of(prepared, "val") == "ghij"
    assert prepared.train_text_bytes == len(expected.replace("|", ""))


@pytest.mark.parametrize("n", [20, 30, 70, 90, 99, 100, 110, 190, 1000])
@pytest.mark.parametrize("tenths", [1, 3, 7, 8])
def test_fractions_of_the_text_are_exact_in_decimal(tmp_path: Path, n: int, tenths: int) -> None:
    (tmp_path / "a.txt").write_text("x" * n)
    config = text_config(tmp_path, val_fraction=tenths / 10)
    assert len(prepare(config, ByteConfig(), tmp_path / "cache").train) == n * (10 - tenths) // 10


def pieces(*texts: str) -> Iterator[tuple[bool, str]]:
    return ((True, text) for text in texts)


def test_the_scored_text_is_contiguous_even_if_a_later_character_fits() -> None:
    found = [(piece.val, piece.starts, piece.text) for piece in by_characters(pieces("abcd", "e猫", "f"), 3, 3)]
    assert found == [(False, True, "abc"), (True, False, "d"), (True, True, "e")]
    found = [(piece.val, piece.starts, piece.text) for piece in by_characters(pieces("abcd", "e", "f"), 4, 1)]
    assert found == [(False, True, "abcd"), (True, True, "e")]


def test_small_batches_and_shards_give_the_same_tokens(
    books: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tokenizer in TOKENIZERS:
        whole = prepare(text_config(books), tokenizer, tmp_path / "cache")
        with monkeypatch.context() as patch:
            patch.setattr(tokenizing, "BATCH", 10)
            patch.setattr(shards, "SHARD_TOKENS", 64)
            split = prepare(text_config(books), tokenizer, tmp_path / "cache")
        assert len(split.train.shards) > 2
        assert split.folder != whole.folder
        for part in ("train", "val"):
            assert np.array_equal(getattr(split, part).read(0, 10**6), getattr(whole, part).read(0, 10**6))


def test_a_loaded_tokenizer_reuses_the_tokens_of_its_training(books: Path, tmp_path: Path) -> None:
    for tokenizer in TOKENIZERS:
        first = prepare(text_config(books), tokenizer, tmp_path / "cache")
        again = load_tokenizer(first.tokenizer.state_dict())
        second = prepare(text_config(books), again, tmp_path / "cache")
        third = prepare(text_config(books), again, tmp_path / "other")
        assert (second.folder, second.fingerprint) == (first.folder, first.fingerprint)
        assert (third.fingerprint, third.text_sha256) == (first.fingerprint, first.text_sha256)


def test_the_cache_depends_only_on_what_determines_the_tokens(books: Path, tmp_path: Path) -> None:
    def fingerprint(tokenizer: TokenizerConfig = TOKENIZERS[2], **settings: Any) -> str:
        return prepare(text_config(books, **settings), tokenizer, tmp_path / "cache").fingerprint

    first = fingerprint()
    assert fingerprint(global_batch_size=3, num_workers=1) == first
    others = [fingerprint(val_fraction=0.2), fingerprint(val_bytes=60), fingerprint(max_tokens=50)]
    others += [fingerprint(BPEConfig(vocab_size=271)), fingerprint(TOKENIZERS[1])]
    (books / "1.txt").write_text("Another book, longer than that.\n" * 9)
    others.append(fingerprint())
    assert len({first, *others}) == 7


def test_bpe_never_sees_the_validation_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ab " * 90 + "cd " * 10)
    prepared = prepare(text_config(tmp_path), BPEConfig(vocab_size=300), tmp_path / "cache")
    pieces = [prepared.tokenizer.decode([token]) for token in range(256, prepared.tokenizer.vocab_size - 1)]
    assert pieces
    assert not any("c" in piece or "d" in piece for piece in pieces)


def test_too_little_text_is_refused_with_the_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 100)
    with pytest.raises(ValueError, match=r"training part has 90 tokens.*block_size=90 needs at least 91"):
        prepare(text_config(tmp_path), CharConfig(), tmp_path / "cache", block_size=90)
    with pytest.raises(ValueError, match=r"5 tokens, capped by data\.max_tokens=5"):
        prepare(text_config(tmp_path, max_tokens=5), CharConfig(), tmp_path / "cache", block_size=5)
    assert len(prepare(text_config(tmp_path), CharConfig(), tmp_path / "cache", block_size=89).train) == 90


@pytest.mark.parametrize("name", ["train-00000.bin", "val-00000.bin", "tokenizer.json", "manifest.json"])
def test_a_damaged_cache_is_named_and_rebuilt_after_deletion(books: Path, tmp_path: Path, name: str) -> None:
    import shutil

    first = prepare(text_config(books), CharConfig(), tmp_path / "cache")
    data = bytearray((first.folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (first.folder / name).write_bytes(data[:-1] if name == "manifest.json" else data)
    with pytest.raises(ValueError, match=rf"{name}.*delete the folder {first.folder}"):
        prepare(text_config(books), CharConfig(), tmp_path / "cache")
    shutil.rmtree(first.folder)
    assert prepare(text_config(books), CharConfig(), tmp_path / "cache").text_sha256 == first.text_sha256


def test_a_cache_folder_without_manifest_is_rebuilt(
    books: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(make_shards, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(text_config(books), CharConfig(), tmp_path / "cache")
    (folder,) = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    (folder / "train-00000.bin").write_bytes(b"half")
    assert (
        text_of(prepare(text_config(books), CharConfig(), tmp_path / "cache"), "train")
        == whole_text()[: len(whole_text()) * 9 // 10]
    )


def _prepare_and_count(books: Path, cache: Path, log: Path, barrier: Any) -> None:
    original = make_shards.make_shards

    def counted(folder: Path, request: make_shards.Request) -> None:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        original(folder, request)

    from gptexp.data import prepare as module

    pytest.MonkeyPatch().setattr(module, "make_shards", counted)
    barrier.wait()
    assert len(prepare(text_config(books), CharConfig(), cache).train) > 0


def test_two_concurrent_processes_prepare_once(books: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, log = context.Barrier(2), tmp_path / "log"
    arguments = (books, tmp_path / "cache", log, barrier)
    processes = [context.Process(target=_prepare_and_count, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(log.read_text().splitlines()) == 1


def test_without_a_terminal_progress_is_one_line_of_text(
    books: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(text_config(books), CharConfig(), tmp_path / "cache")
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("preparing text with char: ")
    assert output.err.count("\n") == 1
    prepare(text_config(books), CharConfig(), tmp_path / "cache")
    assert capsys.readouterr().err == ""


def test_a_manifest_without_a_schema_number_is_opened(books: Path, tmp_path: Path) -> None:
    first = prepare(text_config(books), CharConfig(), tmp_path / "cache")
    path = first.folder / manifest.FILE
    plain = json.loads(path.read_bytes())
    assert plain.pop("schema") == manifest.SCHEMA == 1
    path.write_text(json.dumps({"format": 1, "request": "0" * 64, **plain}))
    before = {file: file.stat().st_mtime_ns for file in first.folder.iterdir()}
    assert prepare(text_config(books), CharConfig(), tmp_path / "cache").fingerprint == first.fingerprint
    assert {file: file.stat().st_mtime_ns for file in first.folder.iterdir()} == before  # nothing was rebuilt


def test_a_manifest_of_a_later_schema_is_refused(books: Path, tmp_path: Path) -> None:
    folder = prepare(text_config(books), CharConfig(), tmp_path / "cache").folder
    path = folder / manifest.FILE
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "schema": 2}))
    with pytest.raises(ValueError, match=r"has schema 2, and this gptexp reads 1; delete the folder"):
        prepare(text_config(books), CharConfig(), tmp_path / "cache")
