"""Shared code of the byte-pair tokenizers: GPT-2's split of a text into words, and encoding by tiktoken."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from gptexp.tokenizers.base import Tokenizer, utf8
from gptexp.tokenizers.byte_level import END_OF_TEXT
from gptexp.tokenizers.long_runs import cut_runs, has_long_runs

# The split of encoder.py in OpenAI's repository gpt-2: contractions, letters, digits, other characters, white space.
# The possessive quantifiers change no match; they keep the engine from backtracking through long runs.
GPT2_SPLIT = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"


class BytePairTokenizer(Tokenizer):
    """Byte-pair encoding of texts whose long runs are cut."""

    @abstractmethod
    def _encode_part(self, text: str) -> np.ndarray:
        """Token ids (n,) of a text without long runs and without lone surrogates."""

    def encode(self, text: str) -> np.ndarray:
        utf8(text)  # refuses a lone surrogate, which the libraries replace without a message
        return np.concatenate([self._encode_part(part) for part in cut_runs(text)]).astype(np.int32, copy=False)

    def cuts_runs(self, text: str) -> bool:
        return has_long_runs(text)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode` of each text, on all cores: the libraries release Python's lock while they encode."""
        if len(texts) < 2:
            return [self.encode(text) for text in texts]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(self.encode, texts))


class TiktokenTokenizer(BytePairTokenizer):
    """Encoding by tiktoken from a table bytes -> rank; a token's id is its rank, and <|endoftext|> comes last."""

    def __init__(self, ranks: dict[bytes, int]) -> None:
        import tiktoken

        super().__init__([*sorted(ranks, key=ranks.__getitem__), b""], eot=len(ranks))
        # <|endoftext|> is not allowed below, so the string is ordinary text. Without any special token, tiktoken
        # would search for an empty one at every byte.
        self._encoding = tiktoken.Encoding(
            self.kind, pat_str=GPT2_SPLIT, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: len(ranks)}
        )

    def _encode_part(self, text: str) -> np.ndarray:
        return self._encoding.encode_to_numpy(text, disallowed_special=())
