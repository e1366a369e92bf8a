"""Settings of the tokenizers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gptexp.config.rules import require_at_least


@dataclass(kw_only=True, slots=True)
class TokenizerConfig:
    """Settings that every tokenizer has.

    implementation: the class, as module:name, a Tokenizer.
    """

    implementation: ClassVar[str] = ""
    kind: str = ""
    """Name of the tokenizer's kind. The preset sets it."""


@dataclass(kw_only=True, slots=True)
class CharConfig(TokenizerConfig):
    """One token per character. The alphabet consists of the characters that occur in the corpus."""

    implementation: ClassVar[str] = "gptexp.tokenizers.char:CharTokenizer"
    kind: str = "char"


@dataclass(kw_only=True, slots=True)
class ByteConfig(TokenizerConfig):
    """One token per UTF-8 byte, and <|endoftext|>."""

    implementation: ClassVar[str] = "gptexp.tokenizers.byte:ByteTokenizer"
    kind: str = "byte"


@dataclass(kw_only=True, slots=True)
class BPEConfig(TokenizerConfig):
    """Byte-level byte-pair encoding, trained on the training part of the corpus."""

    implementation: ClassVar[str] = "gptexp.tokenizers.bpe:BPETokenizer"
    kind: str = "bpe"
    vocab_size: int = 1024
    """Number of tokens: 256 bytes, the learned merges and <|endoftext|>; at least 257."""
    train_bytes: int = 100_000_000
    """Most bytes of training text that merges are learned from."""

    def __post_init__(self) -> None:
        require_at_least(257, "tokenizer", self, "vocab_size")
        require_at_least(1, "tokenizer", self, "train_bytes")


@dataclass(kw_only=True, slots=True)
class GPT2TokenizerConfig(TokenizerConfig):
    """The vocabulary of GPT-2 with 50,257 tokens."""

    implementation: ClassVar[str] = "gptexp.tokenizers.gpt2:GPT2Tokenizer"
    kind: str = "gpt2"


@dataclass(kw_only=True, slots=True)
class FilesTokenizerConfig(TokenizerConfig):
    """A byte-level BPE vocabulary in Hugging Face's format: tokenizer.json, or vocab.json and merges.txt."""

    implementation: ClassVar[str] = "gptexp.tokenizers.files:FilesTokenizer"
    kind: str = "files"
    path: str = ""
    """Folder that holds the tokenizer files."""
    sha256: str = ""
    """Hash of the tokenizer files, computed from path. It identifies the tokenizer when runs are compared."""
