"""Settings of the tokenizers."""

from __future__ import annotations

from dataclasses import dataclass

from gptexp.config.rules import require_at_least


@dataclass(kw_only=True, slots=True)
class TokenizerConfig:
    """What every tokenizer has. `kind` names the file under gptexp/tokenizers/."""

    kind: str = ""


@dataclass(kw_only=True, slots=True)
class CharConfig(TokenizerConfig):
    """One token a character; the alphabet is the corpus's own."""

    kind: str = "char"


@dataclass(kw_only=True, slots=True)
class ByteConfig(TokenizerConfig):
    """One token a UTF-8 byte, and <|endoftext|>."""

    kind: str = "byte"


@dataclass(kw_only=True, slots=True)
class BPEConfig(TokenizerConfig):
    """Byte-level byte-pair encoding, trained on the training part of the corpus."""

    kind: str = "bpe"
    vocab_size: int = 1024  # 256 bytes + merges + <|endoftext|>
    train_bytes: int = 100_000_000  # merges are learned from at most this much text

    def __post_init__(self) -> None:
        require_at_least(257, "tokenizer", self, "vocab_size")
        require_at_least(1, "tokenizer", self, "train_bytes")


@dataclass(kw_only=True, slots=True)
class GPT2TokenizerConfig(TokenizerConfig):
    """OpenAI's GPT-2 vocabulary: 50,257 tokens."""

    kind: str = "gpt2"


@dataclass(kw_only=True, slots=True)
class FilesTokenizerConfig(TokenizerConfig):
    """A byte-level BPE vocabulary from Hugging Face's files: tokenizer.json, or vocab.json and merges.txt."""

    kind: str = "files"
    path: str = ""  # the folder that they lie in
    sha256: str = ""  # of the files, by which runs are told apart; follows path
