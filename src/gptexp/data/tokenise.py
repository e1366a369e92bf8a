"""Pieces of text -> token shards of the two parts, in batches, with memory bounded by a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gptexp.data.shards import ShardWriter
from gptexp.data.split import Piece
from gptexp.tokenizers import Tokenizer

BATCH = 4_000_000  # characters encoded together


class Part:
    """The tokens of training or validation: <|endoftext|> between documents, at most `limit` tokens."""

    def __init__(self, folder: Path, prefix: str, tokenizer: Tokenizer, limit: int | None = None) -> None:
        self.writer = ShardWriter(folder, prefix, tokenizer.vocab_size)
        self.eot, self.limit, self._token_bytes = tokenizer.eot, limit, tokenizer.token_bytes
        self.bytes, self.documents, self.full = 0, 0, False
        self.cuts_runs = False

    def add(self, starts: bool, tokens: np.ndarray, cuts_runs: bool = False) -> None:
        """Append the tokens of one piece. cuts_runs: words of the piece were too long, and cut."""
        self.cuts_runs = self.cuts_runs or cuts_runs
        if starts and len(self.writer) and self.eot is not None:
            self.full = self.full or self._room() < 2  # never <|endoftext|> as the last token
            self._write(np.array([self.eot]))
        self.documents += starts and not self.full
        self._write(tokens)
        self.full = self.full or self._room() == 0

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

    def summary(self) -> dict[str, Any]:
        """What the manifest says about the part."""
        return {
            "shards": [asdict(shard) for shard in self.writer.shards],
            "bytes": self.bytes,
            "documents": self.documents,
            "cuts_runs": self.cuts_runs,
        }

    def _room(self) -> int:
        return 1 << 62 if self.limit is None else self.limit - len(self.writer)

    def _write(self, tokens: np.ndarray) -> None:
        if not self.full:
            tokens = tokens[: self._room()]
            self.writer.write(tokens)
            self.bytes += int(self._token_bytes[tokens].sum())


def tokenise(pieces: Iterable[Piece], tokenizer: Tokenizer, train: Part, val: Part) -> Iterator[int]:
    """Encode pieces and append them to their part; yields the characters of each batch once it is written."""
    for batch in _batches(pieces, train):
        tokens = tokenizer.encode_batch([piece.text for piece in batch])
        for piece, ids in zip(batch, tokens, strict=True):
            (val if piece.val else train).add(piece.starts, ids, tokenizer.cuts_runs(piece.text))
        yield sum(len(piece.text) for piece in batch)


def _batches(pieces: Iterable[Piece], train: Part) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        if train.full and not piece.val:
            continue  # no need to encode what max_tokens leaves out
        batch.append(piece)
        size += len(piece.text)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
