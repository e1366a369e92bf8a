"""The interface of a tokenizer, and checks that the kinds share."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from gptexp.tokenizers.byte_level import END_OF_TEXT, Vocabulary


class NoTokenError(ValueError):
    """A text that can't be encoded. place: of its first character without a token."""

    def __init__(self, message: str, place: int = 0) -> None:
        super().__init__(message)
        self.place = place


class Tokenizer(ABC):
    """A vocabulary of `vocab_size` tokens; each token stands for a fixed sequence of UTF-8 bytes.

    eot is the id of <|endoftext|>, or None. This token stands for no bytes. The string <|endoftext|> inside a text is
    ordinary text.
    """

    kind: ClassVar[str]
    trained: ClassVar[bool] = False  # whether `train` reads the text

    def __init__(self, table: Sequence[bytes], eot: int | None = None) -> None:
        self._table = list(table)
        self.eot = eot

    @classmethod
    @abstractmethod
    def train(cls, config: Any, train_text: Iterable[str], whole_text: Iterable[str]) -> Tokenizer:
        """Learn from pieces of text. Joined, they are the training part and the whole corpus."""

    @classmethod  # noqa: B027 (most kinds need no check)
    def check(cls, config: Any) -> None:
        """Check quickly that what the config names exists. ValueError: it does not; with the remedy."""

    @classmethod
    @abstractmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Tokenizer:
        """Rebuild from `state_dict()`, which may come from an untrusted file. ValueError: anything unexpected."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Plain data (str, int, list) from which `load_tokenizer` rebuilds this tokenizer."""

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """Token ids (n,) int32. NoTokenError: a lone surrogate, or a character without a token."""

    def cuts_runs(self, text: str) -> bool:
        """Whether the text has words that `encode` cuts because they are too long."""
        return False

    def vocabulary(self) -> Vocabulary:
        """The vocabulary as byte-level BPE. ValueError: this kind has none."""
        raise ValueError(f"tokenizer.kind={self.kind}: is not a byte-level tokenizer")

    @property
    def start(self) -> int:
        """The token before a text that has no context: <|endoftext|>, else a line break, else the first token."""
        if self.eot is not None:
            return self.eot
        try:
            return int(self.encode("\n")[0])
        except ValueError:
            return 0

    @property
    def eot_text(self) -> str:
        """The string that stands for the token `eot` in a text."""
        return END_OF_TEXT

    def encode_special(self, text: str) -> np.ndarray:
        """As `encode`, but each `eot_text` becomes the token eot. ValueError: this tokenizer has no such token."""
        if self.eot is None:
            raise ValueError(f"--allow-special: tokenizer={self.kind} has no {END_OF_TEXT}; leave the option out")
        end = np.array([self.eot], dtype=np.int32)
        first, *others = map(self.encode, text.split(self.eot_text))
        return np.concatenate([first, *(part for other in others for part in (end, other))])

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode` of each text."""
        return [self.encode(text) for text in texts]

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """The UTF-8 bytes of the tokens; <|endoftext|> has none. ValueError: a token that does not exist."""
        ids = np.asarray(tokens if isinstance(tokens, np.ndarray) else list(tokens), dtype=np.int64)
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            wrong = ids[(ids < 0) | (ids >= self.vocab_size)][0]
            raise ValueError(f"token {wrong} does not exist: the ids are 0 to {self.vocab_size - 1}")
        return b"".join(map(self._table.__getitem__, ids.tolist()))

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of the tokens. Bytes that are not valid UTF-8 (part of a character) become U+FFFD."""
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")

    @property
    def vocab_size(self) -> int:
        return len(self._table)

    @cached_property
    def token_bytes(self) -> np.ndarray:
        """The number of UTF-8 bytes of each token, (vocab_size,) int64; 0 for <|endoftext|>."""
        return np.array([len(piece) for piece in self._table], dtype=np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON of `state_dict()`, in hex."""
        canonical = json.dumps(self.state_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_state_dict, (self.state_dict(),)


def require_keys(state: Mapping[str, Any], *names: str) -> None:
    """Refuse a saved tokenizer unless its keys are exactly `kind` and these."""
    if set(state) != {"kind", *names}:
        found, wanted = ", ".join(sorted(state)), ", ".join(sorted({"kind", *names}))
        raise ValueError(f"a saved {state['kind']} tokenizer has the keys {wanted}; found {found}")


def utf8(text: str) -> bytes:
    """The UTF-8 bytes of a text. ValueError: a lone surrogate, which UTF-8 cannot represent; with its position."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = f"U+{ord(text[error.start]):04X}"
        message = f"the text holds half a character ({code}, a lone surrogate) at {error.start}"
        raise NoTokenError(message, error.start) from None
