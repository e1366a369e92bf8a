"""Hugging Face's tokenizer files -> the saved state of a tokenizer (no torch, no tiktoken).

tokenizer.json describes a tokenizer completely. The older files vocab.json and merges.txt leave the split of a text
into words to the model's class. tokenizer_config.json names the token that ends a text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from gptexp.tokenizers.byte_level import (
    END_OF_TEXT,
    MAX_SIZE,
    Merge,
    Vocabulary,
    byte_symbols,
    joins_by_bytes,
    token_bytes,
)
from gptexp.util.files import MIB, read_bytes, read_json
from gptexp.util.text import typed_value

WHOLE, VOCAB, MERGES = "tokenizer.json", "vocab.json", "merges.txt"
CONFIG, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
FILES = (WHOLE, VOCAB, MERGES, CONFIG, SPECIAL, ADDED)

# Classes of transformers that split a text as GPT-2 does; checked where there is no tokenizer.json.
GPT2_CLASSES = (None, "GPT2Tokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")
GPT2_SPLITTER = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
CHAR_SPLITTER = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}

# OpenAI's GPT-2 vocabulary: its size, and the SHA-256 of its `as_plain` as JSON.
GPT2_SIZE = 50257
GPT2 = "994b872a5fca897fd72596b20327289d5270f9a02aae4c77b72e07c74e64b88f"

LARGEST_FILE = 128 * MIB  # the file of a vocabulary of 260,000 tokens has 35 MiB

State = dict[str, Any]


def has_files(folder: Path) -> bool:
    """Whether a folder holds a vocabulary."""
    return bool(_used(folder))


def sha256_of(folder: Path) -> str:
    """Hash of the names and contents of a vocabulary's files, independent of their folder; empty: no files."""
    digest = hashlib.sha256()
    for path in (used := _used(folder)):
        content = read_bytes(path, LARGEST_FILE)
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest() if used else ""


def _used(folder: Path) -> list[Path]:
    """The files that are read: tokenizer.json, else the older two; and those that name special tokens."""
    for main in ((WHOLE,), (VOCAB, MERGES)):
        if all((folder / name).is_file() for name in main):
            more = (CONFIG, SPECIAL) if main == (WHOLE,) else (CONFIG, SPECIAL, ADDED)
            return [folder / name for name in (*main, *more) if (folder / name).is_file()]
    return []


def read_state(folder: Path, size: int | None = None) -> State:
    """The state of the tokenizer in these files, of kind char, byte, bpe or gpt2 if it is one of those, else files.

    size: the number of ids of the model; ids that the files do not define have no meaning.

    Raises:
        ValueError: no such files, or not a byte-level BPE tokenizer that splits a text as GPT-2 does; the message
            names the difference.
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
    """A byte-level vocabulary, or the alphabet of a tokenizer with one token per character."""
    path = folder / (WHOLE if (folder / WHOLE).is_file() else VOCAB)
    found = read_json(path, LARGEST_FILE)
    for name in (CONFIG, SPECIAL, ADDED):  # an invalid file is an error that names this file
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
        token_bytes(vocabulary)  # checks the vocabulary
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return vocabulary


def _vocabulary(folder: Path, vocab: object, merges: object, added: dict[str, int]) -> Vocabulary:
    if not isinstance(vocab, dict) or not all(type(token) is int for token in vocab.values()):
        raise ValueError("its vocabulary must give a whole number for each token")
    symbols = byte_symbols()
    for value, symbol in enumerate(symbols):
        _require(symbol in vocab, "vocab", f"has no token for the byte 0x{value:02X}, so some texts cannot be encoded")
    of_text, listed = set(symbols), list[Merge]()
    for left, right in _pairs(merges):
        if unknown := [token for token in (left, right, left + right) if token not in vocab]:
            raise ValueError(
                f"merges: {typed_value(left)} {typed_value(right)}: {typed_value(unknown[0])} is not in the vocabulary"
            )
        listed.append((vocab[left], vocab[right], vocab[left + right]))
        of_text.add(left + right)
    special = {token: i for token, i in vocab.items() if token not in of_text} | added
    for token, i in added.items():
        clash = token in of_text or vocab.get(token, i) != i
        _require(not clash, "added_tokens", f"{typed_value(token)} is in the vocabulary as another token, too")
    return Vocabulary(
        size=max([*vocab.values(), *added.values()]) + 1,
        byte_ids=[vocab[symbol] for symbol in symbols],
        merges=listed,
        special=special,
        eot=_end_of_text(folder, special),
    )


def _pairs(merges: object) -> Iterator[tuple[str, str]]:
    """The merges as pairs; files write them as "a b" or as ["a", "b"]."""
    if not isinstance(merges, list):
        raise ValueError("its merges must be a list")
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) and part for part in pair):
            raise ValueError(f"merges: {typed_value(str(merge)[:80])}: must be two tokens")
        yield pair[0], pair[1]


def _merge_lines(path: Path) -> list[str]:
    try:
        lines = read_bytes(path, LARGEST_FILE).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: {error}") from None
    return [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#version")]


def _added(found: dict[str, Any]) -> dict[str, int]:
    """The special tokens of a tokenizer.json. ValueError: an added token that is not special."""
    tokens = found.get("added_tokens") or []
    if not isinstance(tokens, list) or not all(isinstance(token, dict) for token in tokens):
        raise ValueError("added_tokens: must be a list of objects")
    for token in tokens:
        right = type(token.get("id")) is int and isinstance(token.get("content"), str) and token.get("content")
        _require(bool(right), "added_tokens", "each must have an id and its content")
        _require(
            token.get("special") is True,
            "added_tokens",
            f"{typed_value(token['content'])!r} is not special, so transformers would replace it in every text",
        )
    return {token["content"]: token["id"] for token in tokens}


def _added_map(folder: Path) -> dict[str, int]:
    """The added tokens of the older files. ValueError: a class that may split a text in another way."""
    kind = _given(folder / CONFIG).get("tokenizer_class")
    _require(
        kind in GPT2_CLASSES,
        f"{CONFIG}: tokenizer_class",
        f"{typed_value(kind)} may split a text in another way than GPT-2",
    )
    added = _given(folder / ADDED)
    _require(all(type(token) is int for token in added.values()), ADDED, "must give a whole number for each token")
    return added


def _given(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _end_of_text(folder: Path, special: dict[str, int]) -> int | None:
    """The id of the token that ends a text: the named eos_token, else <|endoftext|>, else none."""
    settings = _given(folder / CONFIG)
    for name in ("add_prefix_space", "add_bos_token", "add_eos_token"):
        _require(
            not settings.get(name), f"{CONFIG}: {name}", f"{typed_value(settings.get(name))}; GPT-2 does not use it"
        )
    for given in (settings, _given(folder / SPECIAL)):
        if "eos_token" in given:
            eos = given["eos_token"]
            eos = eos.get("content") if isinstance(eos, dict) else eos
            known = eos is None or (isinstance(eos, str) and eos in special)
            _require(known, "eos_token", f"{typed_value(eos)} is not a special token of this tokenizer")
            return None if eos is None else special[eos]
    return special.get(END_OF_TEXT)


def _require_gpt2(found: dict[str, Any]) -> None:
    """Refuse, by name, each setting that gives other tokens than GPT-2 would with the same vocabulary."""
    model, splitter = found.get("model"), _only(found.get("pre_tokenizer"), "pretokenizers")
    if not isinstance(model, dict) or model.get("type") != "BPE":
        raise ValueError(f"model.type={typed_value(_type(model))}: must be BPE, as in GPT-2")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"):
        _require(not model.get(name), f"model.{name}", f"{typed_value(model.get(name))}; GPT-2 does not use it")
    _require(
        found.get("normalizer") is None, "normalizer", f"{typed_value(_type(found.get('normalizer')))}: GPT-2 has none"
    )
    _require(
        _type(splitter) == "ByteLevel",
        "pre_tokenizer",
        f"{typed_value(_type(splitter))}: must be ByteLevel, as in GPT-2",
    )
    for name, right in (("add_prefix_space", False), ("use_regex", True)):
        value = splitter.get(name, True)
        _require(
            value is right, f"pre_tokenizer.{name}", f"{typed_value(value)}: must be {typed_value(right)}, as in GPT-2"
        )
    after = _only(found.get("post_processor"), "processors")
    silent = _type(after) == "TemplateProcessing" and after.get("special_tokens") == {}
    quiet = after is None or _type(after) == "ByteLevel" or silent
    _require(quiet, "post_processor", f"{typed_value(_type(after))}: adds tokens to each text; GPT-2 does not")


def _only(part: Any, of: str) -> Any:
    """The part itself, or the step of a sequence that has one step."""
    steps = part.get(of) if isinstance(part, dict) and part.get("type") == "Sequence" else None
    return steps[0] if isinstance(steps, list) and len(steps) == 1 else part


def _type(part: Any) -> Any:
    """The type of a part; None: there is no part."""
    return part.get("type", "?") if isinstance(part, dict) else None if part is None else "?"


def _alphabet(found: dict[str, Any]) -> str:
    """The alphabet of a tokenizer with one token per character, in the form that huggingface_export.py writes."""
    vocab = found["model"].get("vocab")
    letters = isinstance(vocab, dict) and all(len(letter) == 1 for letter in vocab)
    if not letters or found.get("pre_tokenizer") != CHAR_SPLITTER or found.get("added_tokens") or not vocab:
        raise ValueError("model.type=WordLevel: must have one token per character; else it must be BPE")
    if list(vocab.values()) != list(range(len(vocab))) or sorted(vocab) != list(vocab):
        raise ValueError("model.vocab: the characters must be sorted, and their ids must count from 0")
    return "".join(vocab)


def _sized(vocabulary: Vocabulary, size: int) -> Vocabulary:
    """The vocabulary for a model with `size` ids. Special tokens without a row in the model are dropped."""
    special = {name: i for name, i in vocabulary.special.items() if i < size or i == vocabulary.eot}
    most = max([*vocabulary.byte_ids, *(made for _, _, made in vocabulary.merges), *special.values()]) + 1
    _require(most <= size, "its tokenizer", f"needs {most} ids, but config.json has vocab_size={size}")
    _require(size <= MAX_SIZE, "config.json", f"vocab_size={size}: must be at most {MAX_SIZE:,}")
    return replace(vocabulary, size=size, special=special)


def _state(vocabulary: Vocabulary) -> State:
    """The state of the simplest kind with exactly these tokens at these ids."""
    merges, last = vocabulary.merges, vocabulary.size - 1
    if vocabulary.special == {END_OF_TEXT: last} and vocabulary.eot == last:
        if _is_gpt2(vocabulary):
            return {"kind": "gpt2"}
        counted = [*vocabulary.byte_ids, *(made for _, _, made in merges)] == list(range(last))
        if counted and joins_by_bytes(vocabulary):  # bpe encodes by tiktoken
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
