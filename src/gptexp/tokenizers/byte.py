"""One token per UTF-8 byte, and <|endoftext|>: 257 tokens, nothing to train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gptexp.config.tokenizer import ByteConfig
from gptexp.tokenizers.base import Tokenizer, require_keys, utf8
from gptexp.tokenizers.byte_level import Vocabulary, in_order


class ByteTokenizer(Tokenizer):
    kind = "byte"

    def __init__(self) -> None:
        super().__init__([bytes([value]) for value in range(256)] + [b""], eot=256)

    @classmethod
    def train(cls, config: ByteConfig, train_text: Iterable[str], whole_text: Iterable[str]) -> ByteTokenizer:
        return cls()

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> ByteTokenizer:
        require_keys(state)
        return cls()

    def state_dict(self) -> dict[str, Any]:
        return {"kind": self.kind}

    def vocabulary(self) -> Vocabulary:
        return in_order([])

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(utf8(text), dtype=np.uint8).astype(np.int32)
