"""Tokenizers and prepared texts of the tests."""

from __future__ import annotations

from gptexp.config.tokenizer import BPEConfig, ByteConfig, CharConfig, GPT2TokenizerConfig
from gptexp.data.prepare import TextData

TOKENIZERS = [CharConfig(), ByteConfig(), BPEConfig(vocab_size=270), GPT2TokenizerConfig()]


def text_of(prepared: TextData, part: str) -> str:
    store = getattr(prepared, part)
    return prepared.tokenizer.decode(store.read(0, len(store)))
