"""Tokenizers in Hugging Face's files give the tokens of transformers."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")  # it needs newer packages than the lowest that gptexp allows

from transformers import AutoTokenizer

from gptexp.config.tokenizer import BPEConfig, ByteConfig, CharConfig, GPT2TokenizerConfig
from gptexp.tokenizers import load_tokenizer, train_tokenizer
from gptexp.tokenizers.byte_level import byte_symbols
from gptexp.tokenizers.huggingface_export import files_of
from gptexp.tokenizers.huggingface_files import read_state
from support.tokenizer_files import HARD, gpt2_files, learned, read, saved, source_code


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OpenAI's vocabulary as transformers saves it."""
    folder = tmp_path_factory.mktemp("gpt2")
    saved(folder, *gpt2_files())
    return folder


# ---------------------------------------------------------------------------------- GPT-2's vocabulary


def test_gpt2_tokens_equal_those_of_the_reference(gpt2_folder: Path) -> None:
    ours, reference = train_tokenizer(GPT2TokenizerConfig()), AutoTokenizer.from_pretrained(gpt2_folder)
    for text in (*HARD, source_code(1_000_000)):
        tokens = ours.encode(text).tolist()
        assert tokens == reference(text)["input_ids"]
        assert reference.decode(tokens, clean_up_tokenization_spaces=False) == text
    with pytest.raises(ValueError, match=r"U\+DC00"):
        ours.encode("half \udc00 a character")


def test_allowed_special_tokens_equal_those_of_the_reference(gpt2_folder: Path) -> None:
    ours, reference = train_tokenizer(GPT2TokenizerConfig()), AutoTokenizer.from_pretrained(gpt2_folder)
    for text in ("one<|endoftext|>two", "<|endoftext|>", "a <|endoftext|> b<|endoftext|><|endoftext|>", "none"):
        tokens = ours.encode_special(text).tolist()
        assert tokens == reference(text)["input_ids"]
        assert tokens.count(50256) == text.count("<|endoftext|>")
        assert 50256 not in ours.encode(text)


@pytest.mark.parametrize("older", [False, True])
def test_files_with_gpt2s_vocabulary_are_the_gpt2_tokenizer(gpt2_folder: Path, tmp_path: Path, older: bool) -> None:
    if older:
        vocab, merges = gpt2_files()
        (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(merge) for merge in merges), ""]
        (tmp_path / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    folder = tmp_path if older else gpt2_folder
    assert read_state(folder) == {"kind": "gpt2"}
    padded = read(folder, 50304)
    assert (padded.kind, padded.vocab_size, padded.eot) == ("files", 50304, 50256)
    assert padded.encode(HARD[3]).tolist() == train_tokenizer(GPT2TokenizerConfig()).encode(HARD[3]).tolist()
    assert padded.decode_bytes([50256, 50257, 50303]) == b""


# ------------------------------------------------------------------------------- any vocabulary


@pytest.mark.parametrize("shuffled", [False, True])
def test_ids_can_be_anywhere(tmp_path: Path, shuffled: bool) -> None:
    vocab, merges = learned(700)
    ids = list(range(len(vocab) + 40))  # some have no meaning
    if shuffled:
        random.Random(1).shuffle(ids)
    reference = saved(tmp_path, {token: ids[i] for token, i in vocab.items()}, merges)
    ours = read(tmp_path)
    assert ours.kind == "files"
    assert ours.eot == reference.eos_token_id == ids[0]
    for text in (*HARD, source_code(100_000)):
        assert ours.encode(text).tolist() == reference(text)["input_ids"]
        assert ours.decode(ours.encode(text)) == text
    copy = load_tokenizer(json.loads(json.dumps(ours.state_dict())))
    assert copy.fingerprint == ours.fingerprint
    assert copy.encode(HARD[2]).tolist() == ours.encode(HARD[2]).tolist()
    assert int((ours.token_bytes == 0).sum()) == ours.vocab_size - len(vocab) + 1
    assert ours.decode([*ours.encode("a<|endoftext|>"), ours.eot]) == "a<|endoftext|>"
    assert ours.eot not in ours.encode("a<|endoftext|>")
    assert ours.encode_special("a<|endoftext|> b").tolist() == reference("a<|endoftext|> b")["input_ids"]


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(CharConfig(), id="char"),
        pytest.param(ByteConfig(), id="byte"),
        pytest.param(BPEConfig(vocab_size=600), id="bpe"),
        pytest.param(GPT2TokenizerConfig(), id="gpt2", marks=pytest.mark.slow),
    ],
)
def test_every_kind_is_exported_to_transformers_and_read_back(tmp_path: Path, config: Any) -> None:
    text = "\n".join(HARD)
    ours = train_tokenizer(config, [text], [text])
    for name, data in files_of(ours, 64).items():
        (tmp_path / name).write_bytes(data)
    reference = AutoTokenizer.from_pretrained(tmp_path)
    assert len(reference) == ours.vocab_size
    assert reference.eos_token_id == ours.eot
    for line in HARD:
        tokens = ours.encode(line).tolist()
        assert reference(line)["input_ids"] == tokens
        assert reference.decode(tokens) == line
    assert read(tmp_path).fingerprint == ours.fingerprint
    if config.kind != "char":
        (tmp_path / "tokenizer.json").unlink()
        assert read(tmp_path).fingerprint == ours.fingerprint
    else:
        with pytest.raises(Exception, match="UNK"):
            reference("ѫ")


def test_a_vocabulary_from_files_is_written_back_the_same(tmp_path: Path) -> None:
    reference = saved(tmp_path, *learned(400))
    ours = read(tmp_path, 450)
    (tmp_path / "out").mkdir()
    for name, data in files_of(ours, 64).items():
        (tmp_path / "out" / name).write_bytes(data)
    again = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert again.get_vocab() == reference.get_vocab()
    assert read(tmp_path / "out", 450).fingerprint == ours.fingerprint


def test_older_files_give_the_same_tokens_as_transformers(tmp_path: Path) -> None:
    """tiktoken would merge a and bc, or ab and c, whichever of the two merges is in the list."""
    vocab = {token: i for i, token in enumerate([*byte_symbols(), "ab", "bc", "abc", "<|endoftext|>"])}
    for lines, parts in {"a b\nb c\na bc\n": ["ab", "c"], "a b\nb c\nab c\na bc\n": ["abc"]}.items():
        (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
        (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{lines}", encoding="utf-8")
        ours, reference = read(tmp_path), AutoTokenizer.from_pretrained(tmp_path, tokenizer_type="gpt2")
        assert ours.kind == "files"
        assert ours.encode("abc").tolist() == [vocab[part] for part in parts]
        for text in ("abc", "aabcbc cab", *HARD):
            assert ours.encode(text).tolist() == reference(text)["input_ids"]
            assert ours.decode(ours.encode(text)) == text
        (tmp_path / "out").mkdir(exist_ok=True)
        for name, data in files_of(ours, 64).items():
            (tmp_path / "out" / name).write_bytes(data)
        assert read(tmp_path / "out").fingerprint == ours.fingerprint
