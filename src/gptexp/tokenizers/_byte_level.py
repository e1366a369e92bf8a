"""Byte-level BPE vocabularies in the manner of GPT-2, whichever file they come in and wherever their ids stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gptexp.tokenizers import END_OF_TEXT, Tokenizer

# A few dozen merges can double a token to terabytes, so a stranger's are bounded; English tokens have 5 bytes.
MAX_TOKEN_BYTES = 4096
MAX_TABLE_BYTES = 1 << 28
MAX_SIZE = 10_000_000  # ids

Merge = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What a byte-level BPE tokenizer is, as plain data.

    size: ids are 0 to size - 1; an id of no byte and no merge stands for no text. byte_ids: of the 256 bytes.
    merges: (left, right, made), ids, the first to apply first. special: strings that are no text, and their
    ids. eot: the special id that ends a document, or None.
    """

    size: int
    byte_ids: list[int]
    merges: list[Merge]
    special: dict[str, int]
    eot: int | None

    def as_plain(self) -> dict[str, Any]:
        """Lists and numbers, as a checkpoint holds them."""
        merges = [list(merge) for merge in self.merges]
        own = {"size": self.size, "byte_ids": list(self.byte_ids), "merges": merges}
        return {**own, "special": dict(self.special), "eot": self.eot}


def token_bytes(vocabulary: Vocabulary) -> dict[int, bytes]:
    """Id -> bytes of each token that stands for text: the 256 bytes, then in the order of the merges.

    Raises:
        ValueError: an id is used twice or beyond `size`, a merge joins what isn't there, tokens beyond all measure.
    """
    _require_ids(vocabulary)
    table = {token: bytes([value]) for value, token in enumerate(vocabulary.byte_ids)}
    made, total = set(table.values()), 0
    for place, (left, right, token) in enumerate(vocabulary.merges):
        if left not in table or right not in table:
            raise ValueError(f"merge {place} joins {left} and {right}, but no merge before it makes them")
        piece = table[left] + table[right]
        total += len(piece)
        if len(piece) > MAX_TOKEN_BYTES or total > MAX_TABLE_BYTES:
            raise ValueError(f"merge {place} makes the tokens too long: {len(piece)} bytes, {total} in all")
        if piece in made:
            raise ValueError(f"merge {place} makes {piece!r} a second time")
        table[token] = piece
        made.add(piece)
    return table


def _require_ids(vocabulary: Vocabulary) -> None:
    """Each id means one thing, and all lie below size."""
    ids = [*vocabulary.byte_ids, *(made for _, _, made in vocabulary.merges), *vocabulary.special.values()]
    if len(vocabulary.byte_ids) != 256:
        raise ValueError(f"a byte-level vocabulary has ids of 256 bytes, not {len(vocabulary.byte_ids)}")
    if not 256 <= vocabulary.size <= MAX_SIZE:
        raise ValueError(f"a byte-level vocabulary has 256 to {MAX_SIZE:,} ids, not {vocabulary.size}")
    if not all(0 <= token < vocabulary.size for token in ids):
        wrong = next(token for token in ids if not 0 <= token < vocabulary.size)
        raise ValueError(f"token id {wrong} lies outside the vocabulary of {vocabulary.size}")
    if len(set(ids)) < len(ids):
        raise ValueError("two tokens have the same id")
    if vocabulary.eot is not None and vocabulary.eot not in vocabulary.special.values():
        raise ValueError(f"the end of a text, id {vocabulary.eot}, is no special token")


def require_canonical(table: Mapping[int, bytes], merges: Iterable[Merge]) -> None:
    """Make sure that going by bytes, as tiktoken does, cuts every text as going by the list of merges does.

    tiktoken joins any two neighbours whose bytes are a token, Hugging Face only the listed pair. Both agree where
    the merges before a token's own leave of its bytes just the two parts that the list names: other two parts
    then never stand side by side. It is so wherever merges were learned from a text.

    Raises:
        ValueError: naming the merge where it isn't so.
    """
    splits = Splits(table.values())
    rank_of = {token: rank for rank, token in enumerate(table)}
    for left, right, made in merges:
        if not splits.add(rank_of[left], rank_of[right], rank_of[made]):
            raise ValueError(
                f"the merge of {table[left]!r} and {table[right]!r} can't come about, because merges before it cut "
                f"{table[made]!r} elsewhere; its tokens would depend on who encodes"
            )


class Splits:
    """Which two parts each token of two bytes or more is made of, by rank; the first 256 are the bytes.

    A token is added after its parts.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = list(pieces)
        self.ranks = {piece: rank for rank, piece in enumerate(self.pieces)}
        self.parts: dict[int, tuple[int, int]] = {}

    def add(self, left: int, right: int, made: int) -> bool:
        """Note the parts of a token; False where lower merges would not have left just these two."""
        self.parts[made] = (left, right)
        return max(left, right) < made and self._stay_apart(left, right, made)

    def find(self, made: int) -> tuple[int, int] | None:
        """Note and give the parts of a token, or None where no merge makes it."""
        piece = self.pieces[made]
        for cut in range(1, len(piece)):
            left, right = self.ranks.get(piece[:cut], made), self.ranks.get(piece[cut:], made)
            if max(left, right) < made and self.add(left, right, made):
                return left, right
        return None

    def _stay_apart(self, left: int, right: int, before: int) -> bool:
        """Whether merges of rank below `before` keep two neighbours from growing together.

        Time runs backwards: the later of the two is taken apart, and what then touched the border must not have
        been joined before that merge came. Of equal ranks the leftmost is joined first.
        """
        while self.ranks.get(self.pieces[left] + self.pieces[right], before) >= before:
            if max(left, right) < 256:
                return True
            if left > right:
                before, left = left, self.parts[left][1]
            else:
                before, right = right + 1, self.parts[right][0]
        return False


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """The vocabulary of a byte-level tokenizer of ours. ValueError: it isn't one, or has tokens that no merge makes."""
    own = getattr(tokenizer, "vocabulary", None)
    if isinstance(own, Vocabulary):
        return own
    eot = tokenizer.eot
    # Of the other kinds an id is a rank, and the end of a text comes last.
    table = {token: tokenizer.decode_bytes([token]) for token in range(tokenizer.vocab_size) if token != eot}
    ids = {piece: token for token, piece in table.items()}
    if eot is None or any(len(table.get(token, b"")) != 1 for token in range(256)):
        raise ValueError(f"tokenizer.kind={tokenizer.kind}: is no byte-level tokenizer")
    return Vocabulary(
        size=tokenizer.vocab_size,
        byte_ids=[ids[bytes([value])] for value in range(256)],
        merges=list(_recovered(table)),
        special={END_OF_TEXT: eot},
        eot=eot,
    )


def _recovered(table: Mapping[int, bytes]) -> Iterator[Merge]:
    """The merges of a table in which ids go by rank."""
    splits, ids = Splits(table.values()), list(table)
    for rank, piece in enumerate(splits.pieces[256:], 256):
        parts = splits.find(rank)
        if parts is None:
            raise ValueError(f"no merge makes the token {piece!r}, so Hugging Face's tokenizers can't have it")
        yield ids[parts[0]], ids[parts[1]], ids[rank]


def byte_symbols() -> list[str]:
    """The character that byte-level BPE writes for each byte: itself if visible, else the next from U+0100."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(value if value in visible else next(spare)) for value in range(256)]
