"""Byte-level BPE vocabularies as plain data, whatever file they come from and wherever their ids lie.

Byte-pair encoding: Sennrich et al. 2016, arXiv 1508.07909, section 3.2. Over bytes: Radford et al. 2019, "Language
Models are Unsupervised Multitask Learners", section 2.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers.models import BPE

END_OF_TEXT = "<|endoftext|>"

# A token can double in length with each merge, so a few dozen merges of an untrusted file could need terabytes.
# Tokens of English text have 5 bytes on average.
MAX_TOKEN_BYTES = 4096
MAX_TABLE_BYTES = 1 << 28
MAX_SIZE = 10_000_000  # ids

Merge = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """A byte-level BPE vocabulary.

    size: the ids are 0 to size - 1; an id that belongs to no byte and no merge stands for no text.
    byte_ids: ids of the 256 bytes.
    merges: (left, right, made), as ids; the first merge has the highest priority.
    special: strings that are never text, and their ids.
    eot: the special id that ends a document, or None.
    """

    size: int
    byte_ids: list[int]
    merges: list[Merge]
    special: dict[str, int]
    eot: int | None

    def as_plain(self) -> dict[str, Any]:
        """Lists and numbers, as a checkpoint holds them."""
        merges = [list(merge) for merge in self.merges]
        ids = {"size": self.size, "byte_ids": list(self.byte_ids), "merges": merges}
        return {**ids, "special": dict(self.special), "eot": self.eot}


def in_order(pairs: Iterable[tuple[int, int]]) -> Vocabulary:
    """The vocabulary whose ids are the bytes, the merges in their order, and <|endoftext|>."""
    merges = [(left, right, made) for made, (left, right) in enumerate(pairs, 256)]
    eot = 256 + len(merges)
    return Vocabulary(size=eot + 1, byte_ids=list(range(256)), merges=merges, special={END_OF_TEXT: eot}, eot=eot)


def token_bytes(vocabulary: Vocabulary) -> dict[int, bytes]:
    """Id -> bytes of each token that stands for text: the 256 bytes, then the merged tokens in their order.

    Raises:
        ValueError: an id is used twice or is not below `size`, a merge joins tokens that no merge before it makes, or
            the tokens exceed the limits above.
    """
    _require_ids(vocabulary)
    table = {token: bytes([value]) for value, token in enumerate(vocabulary.byte_ids)}
    ids, total = {piece: token for token, piece in table.items()}, 0
    for place, (left, right, token) in enumerate(vocabulary.merges):
        if left not in table or right not in table:
            raise ValueError(f"merge {place} joins {left} and {right}, but no merge before it makes them")
        piece = table[left] + table[right]
        total += len(piece)
        if len(piece) > MAX_TOKEN_BYTES or total > MAX_TABLE_BYTES:
            raise ValueError(f"merge {place} makes the tokens too long: {len(piece)} bytes, {total} in all")
        # Several merges may make one token.
        if ids.setdefault(piece, token) != token or table.setdefault(token, piece) != piece:
            raise ValueError(f"merge {place} makes {piece!r} the token {token}, but another merge says otherwise")
    return table


def _require_ids(vocabulary: Vocabulary) -> None:
    """Require that all ids lie below size, and that bytes, merged tokens and special tokens share none."""
    made = {made for _, _, made in vocabulary.merges}
    ids = [*vocabulary.byte_ids, *made, *vocabulary.special.values()]
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
        raise ValueError(f"the end of a text, id {vocabulary.eot}, is not a special token")


def token_names(vocabulary: Vocabulary) -> dict[int, str]:
    """Id -> name in Hugging Face's files of each token that stands for text. ValueError: as `token_bytes`."""
    symbols = byte_symbols()
    return {token: "".join(map(symbols.__getitem__, piece)) for token, piece in token_bytes(vocabulary).items()}


def bpe_model(vocabulary: Vocabulary) -> BPE:
    """The model of the tokenizers library with these tokens and merges. ValueError: as `token_bytes`.

    It has no special tokens, so it treats their strings as ordinary text.
    """
    from tokenizers.models import BPE

    names = token_names(vocabulary)
    merges = [(names[left], names[right]) for left, right, _ in vocabulary.merges]
    return BPE(vocab={name: token for token, name in names.items()}, merges=merges)


def joins_by_bytes(vocabulary: Vocabulary) -> bool:
    """Whether tiktoken would give every text the tokens that this vocabulary gives; each token has one merge.

    tiktoken joins two neighbors if their bytes are a token. The tokenizers library joins only the pairs of the list.
    Both agree if the library encodes the bytes of every token as this token: then the merges of higher priority
    leave exactly the two parts of the list, and two other parts of the token never become neighbors. Merges that were
    learned from a text have this property.
    """
    model = bpe_model(vocabulary)
    return all([part.id for part in model.tokenize(name)] == [i] for i, name in token_names(vocabulary).items())


def byte_symbols() -> list[str]:
    """The character that names each byte: the byte's Latin-1 character if it is visible, else the next from U+0100."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(value if value in visible else next(spare)) for value in range(256)]
