"""What the byte-pair tokenizers share: encoding by tiktoken with GPT-2's way to split a text into words."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from gptexp.tokenizers import Tokenizer, utf8
from gptexp.tokenizers._runs import cut_runs, has_long_runs

# The split of GPT-2's published encoder.py: contractions, letters, digits, the rest, white space. The
# possessive quantifiers change no match; they keep the engine from backtracking through long runs.
GPT2_SPLIT = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"


class TiktokenTokenizer(Tokenizer):
    """Byte-pair encoding from a table bytes -> rank; a rank is the token's id, <|endoftext|> comes last.

    ids: for each rank the token's id, where that is another. `table` and `eot` then go by ids.
    """

    def __init__(
        self,
        ranks: dict[bytes, int],
        ids: Sequence[int] | None = None,
        table: Sequence[bytes] = (),
        eot: int | None = None,
    ) -> None:
        import tiktoken

        own = [*sorted(ranks, key=ranks.__getitem__), b""]
        super().__init__(own if ids is None else table, eot=len(ranks) if ids is None else eot)
        self._ids = None if ids is None else np.array(ids, dtype=np.int32)
        # <|endoftext|> is never allowed below, so it can only be ordinary text; but where tiktoken knows no special
        # token at all, it looks for an empty one at every byte.
        self._encoding = tiktoken.Encoding(
            self.kind, pat_str=GPT2_SPLIT, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": len(ranks)}
        )

    def encode(self, text: str) -> np.ndarray:
        utf8(text)  # a lone surrogate is refused here; tiktoken would replace it in silence
        parts = [self._encoding.encode_to_numpy(part, disallowed_special=()) for part in cut_runs(text)]
        tokens = np.concatenate(parts).astype(np.int32)
        return tokens if self._ids is None else self._ids[tokens]

    def cuts_runs(self, text: str) -> bool:
        return has_long_runs(text)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode` of each text, on all cores: tiktoken lets go of Python's lock while it works."""
        if len(texts) < 2:
            return [self.encode(text) for text in texts]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(self.encode, texts))
