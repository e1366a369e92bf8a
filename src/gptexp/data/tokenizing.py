"""From pieces of text to the token shards of both parts, in batches that bound the memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gptexp.data import manifest
from gptexp.data.shards import ShardWriter
from gptexp.data.split import Piece
from gptexp.tokenizers import NoTokenError, Tokenizer

BATCH = 4_000_000  # characters encoded together


class PartWriter:
    """Writes the tokens of training or validation: <|endoftext|> between documents, at most `limit` tokens."""

    def __init__(self, folder: Path, prefix: str, tokenizer: Tokenizer, limit: int | None = None) -> None:
        self.writer = ShardWriter(folder, prefix, tokenizer.vocab_size)
        self.eot, self.limit, self._token_bytes = tokenizer.eot, limit, tokenizer.token_bytes
        self.bytes, self.documents = 0, 0
        self.full, self.cuts_runs = False, False

    def add(self, starts: bool, tokens: np.ndarray, cuts_runs: bool = False) -> None:
        """Append the tokens of one piece.

        starts: a document begins with the piece. cuts_runs: the tokenizer cut words of the piece that are too long.
        """
        if starts and len(self.writer) and self.eot is not None:
            self.full = self.full or self._left() < 2  # <|endoftext|> is never the last token
            self._write(np.array([self.eot]))
        self.documents += starts and not self.full
        self.cuts_runs = self.cuts_runs or (cuts_runs and not self.full)  # whatever else its batch contains
        self._write(tokens)
        self.full = self.full or self._left() == 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "writer": self.writer.state_dict(),
            "bytes": self.bytes,
            "documents": self.documents,
            "full": self.full,
            "cuts_runs": self.cuts_runs,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.writer.load_state_dict(state["writer"])
        self.bytes, self.documents, self.full = state["bytes"], state["documents"], state["full"]
        self.cuts_runs = state.get("cuts_runs", False)

    def summary(self) -> manifest.Part:
        """Return what the manifest records of the part."""
        return manifest.Part(
            columns={"shards": self.writer.shards},
            bytes=self.bytes,
            documents=self.documents,
            cuts_runs=self.cuts_runs,
        )

    def _left(self) -> int:
        return 1 << 62 if self.limit is None else self.limit - len(self.writer)

    def _write(self, tokens: np.ndarray) -> None:
        if not self.full:
            tokens = tokens[: self._left()]
            self.writer.write(tokens)
            self.bytes += int(self._token_bytes[tokens].sum())


def tokenize_pieces(pieces: Iterable[Piece], tokenizer: Tokenizer, train: PartWriter, val: PartWriter) -> Iterator[int]:
    """Encode pieces and append them to their part; yields the characters of each batch once it is written."""
    for batch in _batches(pieces, train):
        for piece, (ids, error) in zip(batch, _encoded(batch, tokenizer), strict=True):
            part = val if piece.val else train
            part.add(piece.starts, ids, tokenizer.cuts_runs(piece.text))
            if error and not part.full:
                raise ValueError(error)
        yield sum(len(piece.text) for piece in batch)


def _encoded(batch: list[Piece], tokenizer: Tokenizer) -> list[tuple[np.ndarray, str]]:
    try:
        return [(tokens, "") for tokens in tokenizer.encode_batch([piece.text for piece in batch])]
    except NoTokenError:
        return [encode(piece.text, tokenizer) for piece in batch]


def encode(text: str, tokenizer: Tokenizer) -> tuple[np.ndarray, str]:
    """Return the tokens of a text and an empty string, or those of the part before an error, and the error.

    The error may lie beyond data.max_tokens: a tokenizer of characters knows only those of the text that is used.
    """
    try:
        return tokenizer.encode(text), ""
    except NoTokenError as error:
        return tokenizer.encode(text[: error.place]), str(error)


def _batches(pieces: Iterable[Piece], train: PartWriter) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        if train.full and not piece.val:
            continue  # max_tokens leaves it out, so it need not be encoded
        batch.append(piece)
        size += len(piece.text)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
