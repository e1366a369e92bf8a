"""Which text is for training and which for validation, decided before any tokenizer is involved.

All tokenizers are therefore scored on the same text, and bits per byte can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import xxhash


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of one part; `starts`: a document begins with it."""

    val: bool
    starts: bool
    text: str


def by_characters(pieces: Iterable[tuple[bool, str]], n_train: int, val_bytes: int | None) -> Iterator[Piece]:
    """The first n_train characters are for training, the rest for validation, at most val_bytes bytes of it.

    pieces: those of a corpus (see `CorpusBase.pieces`).
    """
    position, left = 0, val_bytes
    for starts, text in pieces:
        border = min(max(n_train - position, 0), len(text))
        position += len(text)
        if border:
            yield Piece(False, starts, text[:border])
        rest = text[border:]
        if rest:
            cut = first_bytes(rest, left)
            if cut:
                yield Piece(True, starts and border == 0, cut)
            if len(cut) < len(rest):
                return
            left = None if left is None else left - len(cut.encode())


class DocumentSplit:
    """Validation is the first val_bytes bytes of the documents whose hash falls below val_fraction.

    Later documents with such a hash are dropped, so they are never trained on.
    """

    def __init__(self, val_fraction: float, val_bytes: int, val_full: bool = False) -> None:
        self.limit = int(val_fraction * 2**64)
        self.left = val_bytes
        self.val_full = val_full

    def assign(self, text: str) -> Piece | None:
        """Return the document as a piece of its part; None: it is dropped."""
        if xxhash.xxh3_64_intdigest(text.encode()) >= self.limit:
            return Piece(False, True, text)
        cut = "" if self.val_full else first_bytes(text, self.left)
        self.left -= len(cut.encode())
        self.val_full = self.val_full or len(cut) < len(text) or self.left == 0
        return Piece(True, True, cut) if cut else None


def first_bytes(text: str, limit: int | None) -> str:
    """Return the longest beginning of whole characters that takes at most `limit` bytes of UTF-8."""
    if limit is None or len(text) * 4 <= limit:
        return text
    return text[:limit].encode()[:limit].decode("utf-8", errors="ignore")
