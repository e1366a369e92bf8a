"""Text -> tokens -> text. Each kind is a file with a class named `Implementation`.

To add a kind, add a file here and a preset in conf/tokenizer/. A file without `Implementation` holds shared code.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gptexp.config.tokenizer import TokenizerConfig

END_OF_TEXT = "<|endoftext|>"
IMPLEMENTATION = re.compile(r"^(class )?Implementation\b", re.MULTILINE)


class Tokenizer(ABC):
    """A vocabulary of `vocab_size` tokens, each of which stands for fixed bytes of UTF-8.

    eot is the id of <|endoftext|>, or None. That token stands for no bytes; the string itself,
    met in a text, is ordinary text.
    """

    kind: ClassVar[str]
    trained: ClassVar[bool] = False  # does `train` read the text?

    def __init__(self, table: Sequence[bytes], eot: int | None = None) -> None:
        self._table = list(table)
        self.eot = eot

    @classmethod
    @abstractmethod
    def train(cls, config: Any, train_text: Iterable[str], whole_text: Iterable[str]) -> Tokenizer:
        """Learn from pieces of text that, joined, are the training part and the whole corpus."""

    @classmethod  # noqa: B027 (most kinds need nothing)
    def check(cls, config: Any) -> None:
        """Quick look whether what the config names is there. ValueError with the remedy when it isn't."""

    @classmethod
    @abstractmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Tokenizer:
        """Rebuild from `state_dict()`, which may come from a stranger. ValueError: anything unexpected."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Plain data (str, int, list) from which `load_tokenizer` rebuilds this tokenizer."""

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """Token ids (n,) int32. ValueError: a lone surrogate, or what this kind has no token for."""

    def cuts_runs(self, text: str) -> bool:
        """Whether the text has words that `encode` cuts because of their length."""
        return False

    @property
    def eot_text(self) -> str:
        """How a text spells the token `eot`."""
        return END_OF_TEXT

    def encode_special(self, text: str) -> np.ndarray:
        """`encode`, but each `eot_text` is the token eot. ValueError: this tokenizer has none."""
        if self.eot is None:
            raise ValueError(f"--allow-special: tokenizer={self.kind} has no {END_OF_TEXT}; leave the option out")
        end = np.array([self.eot], dtype=np.int32)
        first, *others = map(self.encode, text.split(self.eot_text))
        return np.concatenate([first, *(part for other in others for part in (end, other))])

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode` of each text."""
        return [self.encode(text) for text in texts]

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """The UTF-8 bytes that the tokens stand for; <|endoftext|> stands for none. ValueError: no such token."""
        ids = np.asarray(tokens if isinstance(tokens, np.ndarray) else list(tokens), dtype=np.int64)
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            wrong = ids[(ids < 0) | (ids >= self.vocab_size)][0]
            raise ValueError(f"token {wrong} doesn't exist: this tokenizer has 0 to {self.vocab_size - 1}")
        return b"".join(map(self._table.__getitem__, ids.tolist()))

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of the tokens; bytes that are no UTF-8 (a character cut in two) become U+FFFD."""
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")

    @property
    def vocab_size(self) -> int:
        return len(self._table)

    @cached_property
    def token_bytes(self) -> np.ndarray:
        """UTF-8 bytes that each token stands for, (vocab_size,) int64; 0 for <|endoftext|>."""
        return np.array([len(piece) for piece in self._table], dtype=np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON of `state_dict()`, in hex."""
        canonical = json.dumps(self.state_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return load_tokenizer, (self.state_dict(),)


def kinds() -> list[str]:
    """Names of the tokenizers: the files of this folder that define `Implementation`."""
    files = sorted(Path(__file__).parent.glob("[!_]*.py"))
    return [file.stem for file in files if IMPLEMENTATION.search(file.read_text(encoding="utf-8"))]


def needs_training(config: TokenizerConfig) -> bool:
    """Does this tokenizer depend on the text?"""
    return _implementation(config.kind).trained


def check_tokenizer(config: TokenizerConfig) -> None:
    """Refuse a config whose tokenizer can't be made. ValueError: what is missing, and the remedy."""
    _implementation(config.kind).check(config)


def train_tokenizer(
    config: TokenizerConfig, train_text: Iterable[str] = (), whole_text: Iterable[str] = ()
) -> Tokenizer:
    """Make the tokenizer that a config describes.

    Both texts are iterables of pieces, read only by the kinds that need them: char takes its
    alphabet from whole_text, bpe its merges from train_text.
    """
    return _implementation(config.kind).train(config, train_text, whole_text)


def load_tokenizer(state: object) -> Tokenizer:
    """Rebuild a tokenizer from its `state_dict()`. ValueError: anything that no tokenizer of ours would save."""
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise ValueError(f"a saved tokenizer is a dictionary with text keys, not {type(state).__name__}")
    return _implementation(state.get("kind")).from_state_dict(state)


def require_keys(state: Mapping[str, Any], *names: str) -> None:
    """Refuse a saved tokenizer whose keys aren't exactly `kind` and these."""
    if set(state) != {"kind", *names}:
        found, wanted = ", ".join(sorted(state)), ", ".join(sorted({"kind", *names}))
        raise ValueError(f"a saved {state['kind']} tokenizer has the keys {wanted}; found {found}")


def utf8(text: str) -> bytes:
    """UTF-8 of a text. ValueError with the place of a lone surrogate, which no UTF-8 can hold."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = f"U+{ord(text[error.start]):04X}"
        raise ValueError(f"the text holds half a character ({code}, a lone surrogate) at {error.start}") from None


def _implementation(kind: object) -> type[Tokenizer]:
    if not isinstance(kind, str) or kind not in kinds():
        raise ValueError(f"tokenizer.kind={kind}: choose one of {', '.join(kinds())}")
    return importlib.import_module(f"{__name__}.{kind}").Implementation
