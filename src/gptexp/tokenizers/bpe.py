"""Byte-level byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909), trained on the corpus.

Ids: 0 to 255 are the bytes, followed by the merges in the order in which they were learned, and <|endoftext|>.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gptexp.config.tokenizer import BPEConfig
from gptexp.tokenizers.base import require_keys, utf8
from gptexp.tokenizers.byte_level import (
    MAX_TOKEN_BYTES,
    Vocabulary,
    byte_symbols,
    in_order,
    joins_by_bytes,
    token_bytes,
)
from gptexp.tokenizers.byte_pair import TiktokenTokenizer
from gptexp.tokenizers.long_runs import cut_runs
from gptexp.util.interruptible import interruptible

Pair = tuple[int, int]


class BPETokenizer(TiktokenTokenizer):
    kind = "bpe"
    trained = True

    def __init__(self, merges: Iterable[Pair]) -> None:
        self.merges = [(int(left), int(right)) for left, right in merges]
        super().__init__(_ranks(self.merges))

    @classmethod
    def train(cls, config: BPEConfig, train_text: Iterable[str], whole_text: Iterable[str]) -> BPETokenizer:
        """Learn vocab_size - 257 merges from the first train_bytes of train_text; warn if this text has fewer."""
        wanted = config.vocab_size - 257
        merges = _learn(wanted, _first_bytes(train_text, config.train_bytes))
        if len(merges) < wanted:
            warnings.warn(
                f"tokenizer.vocab_size={config.vocab_size}: the training text supports only {len(merges)} of "
                f"{wanted} merges, so the vocabulary has {len(merges) + 257} tokens",
                stacklevel=2,
            )
        return cls(merges)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> BPETokenizer:
        require_keys(state, "merges")
        merges = state["merges"]
        if not isinstance(merges, list) or not all(_is_merge(merge) for merge in merges):
            raise ValueError("a saved bpe tokenizer has merges: a list of pairs of token ids")
        return cls(merges)

    def state_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "merges": [list(merge) for merge in self.merges]}

    def vocabulary(self) -> Vocabulary:
        """As byte-level BPE. ValueError: merges that give other tokens when they are applied one after the other."""
        vocabulary = in_order(self.merges)
        if not joins_by_bytes(vocabulary):
            raise ValueError(
                "tokenizer.kind=bpe: its merges cannot result from training, so other programs would give other tokens"
            )
        return vocabulary


def _is_merge(merge: object) -> bool:
    return isinstance(merge, list | tuple) and len(merge) == 2 and all(type(token) is int for token in merge)


def _ranks(pairs: list[Pair]) -> dict[bytes, int]:
    """bytes -> id. ValueError: a merge of later tokens, a repeated token, or tokens beyond the limits."""
    return {piece: token for token, piece in token_bytes(in_order(pairs)).items()}


def _learn(n_merges: int, text: Iterator[str]) -> list[Pair]:
    """Merges as pairs of ids, most frequent first."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)  # splits a text as GPT-2 does
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = byte_level
    trainer = trainers.BpeTrainer(
        vocab_size=256 + n_merges,
        initial_alphabet=byte_level.alphabet(),  # the text may lack some bytes
        special_tokens=[],
        max_token_length=MAX_TOKEN_BYTES,
        show_progress=sys.stderr.isatty(),
    )
    words = (part for piece in text for part in cut_runs(piece))
    interruptible(lambda parts: tokenizer.train_from_iterator(parts, trainer), words)
    return _to_ids(json.loads(tokenizer.to_str())["model"]["merges"])


def _to_ids(merges: list[list[str]]) -> list[Pair]:
    """The trainer's merges of strings over byte symbols -> merges of ids."""
    ids = dict(zip(byte_symbols(), range(256), strict=True))
    result = []
    for left, right in merges:
        # Two merges may make the same token ("ab"+"c", "a"+"bc"). tiktoken joins by bytes, so one is enough.
        if left + right not in ids:
            result.append((ids[left], ids[right]))
            ids[left + right] = len(ids)
    return result


def _first_bytes(text: Iterable[str], limit: int) -> Iterator[str]:
    for piece in text:
        data = utf8(piece)
        yield piece if len(data) <= limit else data[:limit].decode("utf-8", errors="ignore")
        limit -= len(data)
        if limit <= 0:
            return
