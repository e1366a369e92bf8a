"""Hugging Face's tokenizer files -> the state of a tokenizer of ours (no torch, no tiktoken).

tokenizer.json says all; before it there were vocab.json and merges.txt, which leave the way of splitting a text
to the model's class. tokenizer_config.json names the token that ends a text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from gptexp.tokenizers._byte_level import (
    END_OF_TEXT,
    MAX_SIZE,
    Merge,
    Vocabulary,
    byte_symbols,
    require_canonical,
    token_bytes,
)
from gptexp.util.files import MIB, read_bytes, read_json
from gptexp.util.text import shown

WHOLE, VOCAB, MERGES = "tokenizer.json", "vocab.json", "merges.txt"
CONFIG, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
FILES = (WHOLE, VOCAB, MERGES, CONFIG, SPECIAL, ADDED)

# Classes of transformers that split a text as GPT-2 does; what matters where there is no tokenizer.json.
GPT2_CLASSES = (None, "GPT2Tokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")
GPT2_SPLITTER = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
CHAR_SPLITTER = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}

# GPT-2's own vocabulary: its size, and SHA-256 of its `as_plain` as JSON.
GPT2_SIZE = 50257
GPT2 = "994b872a5fca897fd72596b20327289d5270f9a02aae4c77b72e07c74e64b88f"

LARGEST_FILE = 128 * MIB  # a vocabulary of 260,000 tokens has 35

State = dict[str, Any]


def has_files(folder: Path) -> bool:
    """Whether a folder holds a vocabulary."""
    return bool(_used(folder))


def sha256_of(folder: Path) -> str:
    """Hash of the files that a vocabulary comes from, wherever they lie; empty where there are none."""
    digest = hashlib.sha256()
    for path in (used := _used(folder)):
        content = read_bytes(path, LARGEST_FILE)
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest() if used else ""


def _used(folder: Path) -> list[Path]:
    """The files that count: tokenizer.json, else the older two; and those that name special tokens."""
    for main in ((WHOLE,), (VOCAB, MERGES)):
        if all((folder / name).is_file() for name in main):
            more = (CONFIG, SPECIAL) if main == (WHOLE,) else (CONFIG, SPECIAL, ADDED)
            return [folder / name for name in (*main, *more) if (folder / name).is_file()]
    return []


def read_state(folder: Path, size: int | None = None) -> State:
    """The state of the tokenizer in these files: char, byte, bpe or gpt2 where it is one of those, else files.

    size: how many ids the model has; those that the files don't give mean nothing.

    Raises:
        ValueError: no such files, or not a byte-level BPE tokenizer that splits a text as GPT-2 does; what
            is otherwise is named.
    """
    if not has_files(folder):
        raise ValueError(f"{folder}: no {WHOLE} in it, nor {VOCAB} and {MERGES}")
    found = _read(folder, sha256_of(folder))
    if isinstance(found, str):
        _require(size in (None, len(found)), folder, f"has {len(found)} symbols, but config.json has vocab_size={size}")
        return {"kind": "char", "alphabet": found}
    try:
        return _state(found if size is None else _sized(found, size))
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


@lru_cache(maxsize=4)
def _read(folder: Path, sha256: str) -> Vocabulary | str:
    """A byte-level vocabulary, or the alphabet of a tokenizer that cuts a text into its characters."""
    path = folder / (WHOLE if (folder / WHOLE).is_file() else VOCAB)
    found = read_json(path, LARGEST_FILE)
    for name in (CONFIG, SPECIAL, ADDED):  # broken, each is an error of its own
        _given(folder / name)
    try:
        if path.name == VOCAB:
            vocabulary = _vocabulary(folder, found, _merge_lines(folder / MERGES), _added_map(folder))
        elif isinstance(found.get("model"), dict) and found["model"].get("type") == "WordLevel":
            return _alphabet(found)
        else:
            _require_gpt2(found)
            model = found["model"]
            vocabulary = _vocabulary(folder, model.get("vocab"), model.get("merges"), _added(found))
        table = token_bytes(vocabulary)
        if not _is_gpt2(vocabulary):  # OpenAI's are known to be sound
            require_canonical(table, vocabulary.merges)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return vocabulary


def _vocabulary(folder: Path, vocab: object, merges: object, added: dict[str, int]) -> Vocabulary:
    if not isinstance(vocab, dict) or not all(type(token) is int for token in vocab.values()):
        raise ValueError("its vocabulary must give a whole number for each token")
    symbols = byte_symbols()
    for value, symbol in enumerate(symbols):
        _require(symbol in vocab, "vocab", f"has no token for the byte 0x{value:02X}, so not every text has tokens")
    ordinary: dict[str, Merge] = {}
    for left, right in _pairs(merges):
        if unknown := [token for token in (left, right, left + right) if token not in vocab]:
            raise ValueError(f"merges: {shown(left)} {shown(right)}: {shown(unknown[0])} isn't in the vocabulary")
        ordinary.setdefault(left + right, (vocab[left], vocab[right], vocab[left + right]))
    spoken = {*symbols, *ordinary}
    silent = {token: i for token, i in vocab.items() if token not in spoken} | added
    for token, i in added.items():
        clash = token in spoken or vocab.get(token, i) != i
        _require(not clash, "added_tokens", f"{shown(token)} is in the vocabulary as another token, too")
    return Vocabulary(
        size=max([*vocab.values(), *added.values()]) + 1,
        byte_ids=[vocab[symbol] for symbol in symbols],
        merges=list(ordinary.values()),
        special=silent,
        eot=_end_of_text(folder, silent),
    )


def _pairs(merges: object) -> Iterator[tuple[str, str]]:
    """Merges are written "a b" or ["a", "b"]."""
    if not isinstance(merges, list):
        raise ValueError("its merges must be a list")
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) and part for part in pair):
            raise ValueError(f"merges: {shown(str(merge)[:80])}: must be two tokens")
        yield pair[0], pair[1]


def _merge_lines(path: Path) -> list[str]:
    try:
        lines = read_bytes(path, LARGEST_FILE).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: {error}") from None
    return [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#version")]


def _added(found: dict[str, Any]) -> dict[str, int]:
    """The special tokens of a tokenizer.json; one that isn't special would be cut out of every text."""
    tokens = found.get("added_tokens") or []
    if not isinstance(tokens, list) or not all(isinstance(token, dict) for token in tokens):
        raise ValueError("added_tokens: must be a list of objects")
    for token in tokens:
        right = type(token.get("id")) is int and isinstance(token.get("content"), str) and token.get("content")
        _require(bool(right), "added_tokens", "each must have an id and its content")
        _require(
            token.get("special") is True,
            "added_tokens",
            f"{shown(token['content'])!r} isn't special, so it would be looked for in every text before byte pairs are",
        )
    return {token["content"]: token["id"] for token in tokens}


def _added_map(folder: Path) -> dict[str, int]:
    """What the older files say beside vocab.json: further tokens, and the class that splits the text."""
    kind = _given(folder / CONFIG).get("tokenizer_class")
    _require(kind in GPT2_CLASSES, f"{CONFIG}: tokenizer_class", f"{shown(kind)} may split a text unlike GPT-2")
    added = _given(folder / ADDED)
    _require(all(type(token) is int for token in added.values()), ADDED, "must give a whole number for each token")
    return added


def _given(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _end_of_text(folder: Path, special: dict[str, int]) -> int | None:
    """The id of what ends a text: the eos_token that is named, else GPT-2's, else none."""
    settings = _given(folder / CONFIG)
    for name in ("add_prefix_space", "add_bos_token", "add_eos_token"):
        _require(not settings.get(name), f"{CONFIG}: {name}", f"{shown(settings.get(name))}, which GPT-2 hasn't")
    for given in (settings, _given(folder / SPECIAL)):
        if "eos_token" in given:
            eos = given["eos_token"]
            eos = eos.get("content") if isinstance(eos, dict) else eos
            known = eos is None or (isinstance(eos, str) and eos in special)
            _require(known, "eos_token", f"{shown(eos)} is no special token here")
            return None if eos is None else special[eos]
    return special.get(END_OF_TEXT)


def _require_gpt2(found: dict[str, Any]) -> None:
    """Refuse, by name, whatever would give other tokens than GPT-2's way with the same vocabulary."""
    model, splitter = found.get("model"), _only(found.get("pre_tokenizer"), "pretokenizers")
    if not isinstance(model, dict) or model.get("type") != "BPE":
        raise ValueError(f"model.type={shown(_type(model))}: must be BPE, as GPT-2's")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"):
        _require(not model.get(name), f"model.{name}", f"{shown(model.get(name))}, which GPT-2 hasn't")
    _require(found.get("normalizer") is None, "normalizer", f"{shown(_type(found.get('normalizer')))}: GPT-2 has none")
    _require(
        _type(splitter) == "ByteLevel", "pre_tokenizer", f"{shown(_type(splitter))}: must be ByteLevel, as GPT-2's"
    )
    for name, right in (("add_prefix_space", False), ("use_regex", True)):
        value = splitter.get(name, True)
        _require(value is right, f"pre_tokenizer.{name}", f"{shown(value)}: must be {shown(right)}, as GPT-2's")
    after = _only(found.get("post_processor"), "processors")
    silent = _type(after) == "TemplateProcessing" and after.get("special_tokens") == {}
    quiet = after is None or _type(after) == "ByteLevel" or silent
    _require(quiet, "post_processor", f"{shown(_type(after))}: puts tokens around each text, as GPT-2 doesn't")


def _only(part: Any, of: str) -> Any:
    """A sequence of one step is that step."""
    steps = part.get(of) if isinstance(part, dict) and part.get("type") == "Sequence" else None
    return steps[0] if isinstance(steps, list) and len(steps) == 1 else part


def _type(part: Any) -> Any:
    """What a part calls itself; None where there is none."""
    return part.get("type", "?") if isinstance(part, dict) else None if part is None else "?"


def _alphabet(found: dict[str, Any]) -> str:
    """Of a tokenizer with one token a character, as huggingface_export.py writes it."""
    vocab = found["model"].get("vocab")
    letters = isinstance(vocab, dict) and all(len(letter) == 1 for letter in vocab)
    if not letters or found.get("pre_tokenizer") != CHAR_SPLITTER or found.get("added_tokens") or not vocab:
        raise ValueError("model.type=WordLevel: must have one token a character, or else be BPE, as GPT-2's")
    if list(vocab.values()) != list(range(len(vocab))) or sorted(vocab) != list(vocab):
        raise ValueError("model.vocab: characters must be sorted, their ids count from 0")
    return "".join(vocab)


def _sized(vocabulary: Vocabulary, size: int) -> Vocabulary:
    """The vocabulary for a model with so many ids. Special tokens that it has no row for can't come up."""
    special = {name: i for name, i in vocabulary.special.items() if i < size or i == vocabulary.eot}
    most = max([*vocabulary.byte_ids, *(made for _, _, made in vocabulary.merges), *special.values()]) + 1
    _require(most <= size, "its tokenizer", f"needs {most} ids, but config.json has vocab_size={size}")
    _require(size <= MAX_SIZE, "config.json", f"vocab_size={size}: must be at most {MAX_SIZE:,}")
    return replace(vocabulary, size=size, special=special)


def _state(vocabulary: Vocabulary) -> State:
    """Of the plainest kind that has just these tokens at just these ids."""
    merges, last = vocabulary.merges, vocabulary.size - 1
    if vocabulary.special == {END_OF_TEXT: last} and vocabulary.eot == last:
        if _is_gpt2(vocabulary):
            return {"kind": "gpt2"}
        counted = [*vocabulary.byte_ids, *(made for _, _, made in merges)] == list(range(last))
        if counted:
            pairs = [[left, right] for left, right, _ in merges]
            return {"kind": "bpe", "merges": pairs} if pairs else {"kind": "byte"}
    return {"kind": "files", **vocabulary.as_plain()}


def _is_gpt2(vocabulary: Vocabulary) -> bool:
    if vocabulary.size != GPT2_SIZE:
        return False
    return hashlib.sha256(json.dumps(vocabulary.as_plain(), sort_keys=True).encode()).hexdigest() == GPT2


def _require(holds: bool, where: object, wrong: str) -> None:
    if not holds:
        raise ValueError(f"{where}: {wrong}")
