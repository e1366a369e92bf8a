"""A text that changes while it is read is never stored under the fingerprint of another text."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptexp.config.data import HuggingFaceConfig, LabelledConfig, TextConfig
from gptexp.config.tokenizer import BPEConfig, ByteConfig, CharConfig
from gptexp.data.corpora._reading import Contents
from gptexp.data.labelled import prepare_labelled
from gptexp.data.prepare import prepare
from gptexp.data.text_file import survey, tokens_of
from gptexp.tokenizers import train_tokenizer
from support.runs import story


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # small texts support few merges
        yield


def config(path: Path) -> TextConfig:
    return TextConfig(path=str(path), val_bytes=None)


OTHER = "Another text of other words, which came and went.\n" * 40


def in_training(monkeypatch: pytest.MonkeyPatch, before: Callable[[], object], after: Callable[[], object]) -> None:
    """Call functions before and after a tokenizer is trained."""

    def train(*arguments: Any) -> Any:
        before()
        trained = train_tokenizer(*arguments)
        after()
        return trained

    monkeypatch.setattr("gptexp.data.make_shards.train_tokenizer", train)
    monkeypatch.setattr("gptexp.data.labelled.train_tokenizer", train)


@pytest.mark.parametrize("restored", [True, False])
def test_a_file_replaced_during_preparation_is_never_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restored: bool
) -> None:
    file = tmp_path / "a.txt"
    file.write_text(story(60), encoding="utf-8")
    os.utime(file, ns=(10**18, 10**18))
    expected = prepare(config(file), BPEConfig(vocab_size=300), tmp_path / "right")
    kept = tmp_path / "kept"

    def replace() -> None:
        file.rename(kept)
        file.write_text(OTHER)

    def restore() -> None:
        kept.replace(file)

    # Replaced during or after the training of the tokenizer, and restored before anything else can read it.
    in_training(monkeypatch, *((replace, restore) if restored else (lambda: None, replace)))
    with pytest.raises(ValueError, match=r"a\.txt: has changed while it was being read; run the command again"):
        prepare(config(file), BPEConfig(vocab_size=300), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/manifest.json"))
    monkeypatch.undo()
    if kept.exists():
        restore()
    again = prepare(config(file), BPEConfig(vocab_size=300), tmp_path / "cache")
    assert (again.fingerprint, again.text_sha256) == (expected.fingerprint, expected.text_sha256)


def test_a_file_that_grows_during_preparation_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.txt"
    file.write_text(story(60), encoding="utf-8")

    def grow() -> None:
        with file.open("a") as growing:
            growing.write("one more line\n")

    in_training(monkeypatch, lambda: None, grow)
    with pytest.raises(ValueError, match=r"a\.txt: has changed while it was being read"):
        prepare(config(file), CharConfig(), tmp_path / "cache")


def test_rows_replaced_during_preparation_are_never_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, kept = tmp_path / "rows.jsonl", tmp_path / "kept"
    file.write_text("".join(json.dumps({"text": f"row {i} of the file", "label": i % 2}) + "\n" for i in range(30)))

    def replace_and_restore() -> None:
        file.rename(kept)
        file.write_text('{"text": "another", "label": 1}\n')
        file.unlink()
        kept.rename(file)

    in_training(monkeypatch, replace_and_restore, lambda: None)
    stream = HuggingFaceConfig(dataset="json", data_files=str(file), val_bytes=40)
    with pytest.raises(ValueError, match=r"rows\.jsonl: has changed while it was being read"):
        prepare(stream, CharConfig(), tmp_path / "cache")
    with pytest.raises(ValueError, match=r"rows\.jsonl: has changed while it was being read"):
        prepare_labelled(LabelledConfig(path=str(file)), CharConfig(), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/manifest.json"))


def test_a_text_replaced_during_scoring_is_refused(tmp_path: Path) -> None:
    file, contents = tmp_path / "a.txt", Contents()
    tokenizer = train_tokenizer(ByteConfig())
    file.write_text(story(9), encoding="utf-8")
    survey(file, tokenizer, "utf-8", contents)
    file.write_text(OTHER)
    with pytest.raises(ValueError, match=r"a\.txt: has changed while it was being read"):
        list(tokens_of(file, tokenizer, "utf-8", contents))
