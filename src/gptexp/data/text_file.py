"""A text file to score: decoded as a corpus is, tokenized in pieces, its words counted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gptexp.config.data import AUTO
from gptexp.config.rules import require_encoding
from gptexp.data.corpora._reading import Contents, read_text, recognized, tell_recognized
from gptexp.tokenizers import Tokenizer


@dataclass(frozen=True)
class Survey:
    """Size and hash of a text. words: runs of characters between white space, as str.split cuts."""

    tokens: int
    words: int
    text_sha256: str


def require_text(path: Path) -> None:
    """Refuse a file that is unusable, without reading it.

    Raises:
        ValueError: not a file, or an empty one.
    """
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; give one text file")
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    if not path.is_file():
        raise ValueError(f"{path}: is not a regular file, and a text is read several times; write it to a file first")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: is empty, so there is nothing to score")


def encoding_of(path: Path, given: str | None, contents: Contents) -> str:
    """Return the encoding of a text: the given one, or for None and `auto` the recognized one.

    A notice names a recognized encoding other than UTF-8.

    Raises:
        ValueError: an unknown encoding, or a text whose encoding is not certain.
    """
    if given not in (None, AUTO):
        require_encoding("--encoding", given)
        return given
    found = recognized(path, contents, "--encoding")
    tell_recognized({path: found}, "--encoding")
    return found


def survey(path: Path, tokenizer: Tokenizer, encoding: str, contents: Contents, allow_special: bool = False) -> Survey:
    """Read and tokenize the text once without keeping it, so that an error in it is found before the scoring.

    contents: reads the text here and later, so that a change in between is an error.
    allow_special: <|endoftext|> in the text is the token, not ordinary text.

    Raises:
        ValueError: the place of a byte that can't be decoded or of a character without a token.
    """
    tokens = words = 0
    digest, inside = hashlib.sha256(), False  # inside: the last piece ended within a word
    for text, found in _pieces(path, tokenizer, encoding, contents, allow_special):
        tokens += len(found)
        words += len(text.split()) - (inside and not text[0].isspace())
        inside = not text[-1].isspace()
        digest.update(text.encode())
    if tokens < 2:
        raise ValueError(f"{path}: has {tokens} tokens, and the first is only context; give at least 2")
    return Survey(tokens, words, digest.hexdigest())


def tokens_of(
    path: Path, tokenizer: Tokenizer, encoding: str, contents: Contents | None = None, allow_special: bool = False
) -> Iterator[np.ndarray]:
    """Yield the tokens of the text in pieces (n,). ValueError: as `survey`."""
    for _, tokens in _pieces(path, tokenizer, encoding, contents, allow_special):
        yield tokens


def _pieces(
    path: Path, tokenizer: Tokenizer, encoding: str, contents: Contents | None, allow_special: bool
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the text in pieces, each with its tokens (n,)."""
    encode = tokenizer.encode_special if allow_special else tokenizer.encode
    line = 0
    for text in read_text(path, encoding, setting="--encoding", contents=contents):
        try:
            tokens = encode(text)
        except ValueError as error:
            since = f", from line {line + 1:,} on" if line else ""
            raise ValueError(f"{path}{since}: {error}") from None
        yield text, tokens
        line += text.count("\n")
