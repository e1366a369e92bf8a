"""A tokenizer -> the files from which transformers makes a tokenizer with the same tokens (no torch)."""

from __future__ import annotations

import json
from typing import Any

from gptexp.tokenizers.base import Tokenizer
from gptexp.tokenizers.byte_level import token_names
from gptexp.tokenizers.huggingface_files import CHAR_SPLITTER, CONFIG, GPT2_SPLITTER, MERGES, VOCAB, WHOLE

Plain = dict[str, Any]


def files_of(tokenizer: Tokenizer, block_size: int) -> dict[str, bytes]:
    """The files by name. Byte-level kinds get vocab.json and merges.txt in addition to tokenizer.json.

    Two differences remain: transformers replaces the string <|endoftext|> in a text by the token, and it does not cut
    runs of more than 1,000 characters of one class (tokenizers/long_runs.py).

    Raises:
        ValueError: transformers has no equivalent of this kind.
    """
    if tokenizer.kind == "char":
        return _char_files(tokenizer.state_dict()["alphabet"], block_size)
    vocabulary = tokenizer.vocabulary()
    names = token_names(vocabulary)
    merges = [f"{names[left]} {names[right]}" for left, right, _ in vocabulary.merges]
    vocab = {name: i for i, name in names.items()} | vocabulary.special
    added = [_added_token(name, i) for name, i in sorted(vocabulary.special.items(), key=lambda item: item[1])]
    eot = next((name for name, i in vocabulary.special.items() if i == vocabulary.eot), None)
    decoder = {**GPT2_SPLITTER, "add_prefix_space": True}  # has no effect in a decoder
    return {
        WHOLE: _dumps(_tokenizer_json(GPT2_SPLITTER, decoder, _bpe(vocab, merges), added)),
        CONFIG: _dumps(_tokenizer_config("GPT2Tokenizer", eot, block_size) | {"add_prefix_space": False}),
        VOCAB: _dumps(vocab),
        MERGES: "\n".join(["#version: 0.2", *merges, ""]).encode(),
    }


def _char_files(alphabet: str, block_size: int) -> dict[str, bytes]:
    # <unk> has no id, so a character beyond the alphabet is refused.
    model = {"type": "WordLevel", "vocab": {letter: i for i, letter in enumerate(alphabet)}, "unk_token": "<unk>"}
    whole = _tokenizer_json(CHAR_SPLITTER, {"type": "Fuse"}, model, [])
    return {WHOLE: _dumps(whole), CONFIG: _dumps(_tokenizer_config("PreTrainedTokenizerFast", None, block_size))}


def _tokenizer_json(splitter: Plain, decoder: Plain, model: Plain, added: list[Plain]) -> Plain:
    parts = {"normalizer": None, "pre_tokenizer": splitter, "post_processor": None, "decoder": decoder, "model": model}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, **parts}


def _bpe(vocab: dict[str, int], merges: list[str]) -> Plain:
    off: Plain = {"dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": ""}
    off |= {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    return {"type": "BPE", **off, "vocab": vocab, "merges": merges}


def _added_token(name: str, token: int) -> Plain:
    flags: Plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token, "content": name, **flags, "special": True}


def _tokenizer_config(kind: str, eot: str | None, block_size: int) -> Plain:
    named = dict.fromkeys(("bos_token", "eos_token", "unk_token"), eot)
    return {"tokenizer_class": kind, **named, "model_max_length": block_size, "clean_up_tokenization_spaces": False}


def _dumps(value: Plain) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
