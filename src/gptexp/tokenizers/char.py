"""One token per character; the alphabet is that of the corpus, sorted by code point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gptexp.config.tokenizer import CharConfig
from gptexp.tokenizers.base import NoTokenError, Tokenizer, require_keys, utf8


class CharTokenizer(Tokenizer):
    kind = "char"
    trained = True

    def __init__(self, alphabet: str) -> None:
        super().__init__([utf8(symbol) for symbol in alphabet])
        self.alphabet = alphabet
        # Code point -> id; the last entry stands for all code points beyond the alphabet.
        self._ids = np.full(ord(alphabet[-1]) + 2, -1, dtype=np.int32)
        self._ids[_code_points(alphabet)] = np.arange(len(alphabet), dtype=np.int32)

    @classmethod
    def train(cls, config: CharConfig, train_text: Iterable[str], whole_text: Iterable[str]) -> CharTokenizer:
        """The alphabet of whole_text. ValueError: there is no text."""
        symbols: set[str] = set()
        for piece in whole_text:
            utf8(piece)
            symbols.update(piece)
        if not symbols:
            raise ValueError("tokenizer=char: the text is empty, so it has no alphabet")
        return cls("".join(sorted(symbols)))

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> CharTokenizer:
        require_keys(state, "alphabet")
        alphabet = state["alphabet"]
        if not isinstance(alphabet, str) or not alphabet or "".join(sorted(set(alphabet))) != alphabet:
            raise ValueError("a saved char tokenizer has an alphabet: at least one character, sorted, each once")
        return cls(alphabet)

    def state_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "alphabet": self.alphabet}

    def encode(self, text: str) -> np.ndarray:
        """Token ids (len(text),) int32. ValueError: an unknown character; with its line and column."""
        ids: np.ndarray = self._ids[np.minimum(_code_points(text), len(self._ids) - 1)]
        if ids.size and ids.min() < 0:
            self._refuse(text, int(ids.argmin()))
        return ids

    def _refuse(self, text: str, place: int) -> None:
        line, column = text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)
        raise NoTokenError(
            f"character {text[place]!r} (U+{ord(text[place]):04X}) at line {line}, column {column}: "
            f"not among the {self.vocab_size} characters of this tokenizer's corpus; "
            "remove it, or train with tokenizer=byte or tokenizer=bpe, which encode every character",
            place,
        )


def _code_points(text: str) -> np.ndarray:
    try:
        return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    except UnicodeEncodeError:
        utf8(text)  # raises a ValueError with the position
        raise
