"""Byte-level byte-pair encoding (arXiv 1508.07909, over bytes as in GPT-2), trained on the corpus.

Ids: 0 to 255 are the bytes, then come the merges in the order they were learned, then <|endoftext|>.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gptexp.config.tokenizer import BPEConfig
from gptexp.tokenizers import require_keys, utf8
from gptexp.tokenizers._byte_level import MAX_TOKEN_BYTES, Vocabulary, byte_symbols, token_bytes
from gptexp.tokenizers._runs import cut_runs
from gptexp.tokenizers._tiktoken import TiktokenTokenizer
from gptexp.util.interruptible import interruptible

Merge = tuple[int, int]


class BPETokenizer(TiktokenTokenizer):
    kind = "bpe"
    trained = True

    def __init__(self, merges: Iterable[Merge]) -> None:
        self.merges = [(int(left), int(right)) for left, right in merges]
        super().__init__(_ranks(self.merges))

    @classmethod
    def train(cls, config: BPEConfig, train_text: Iterable[str], whole_text: Iterable[str]) -> BPETokenizer:
        """Learn vocab_size - 257 merges from the first train_bytes of train_text; warns if that has fewer."""
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


def _is_merge(merge: object) -> bool:
    return isinstance(merge, list | tuple) and len(merge) == 2 and all(type(token) is int for token in merge)


def _ranks(merges: list[Merge]) -> dict[bytes, int]:
    """bytes -> id. ValueError: a merge of tokens that come later, a token twice, or one beyond all measure."""
    made = [(left, right, token) for token, (left, right) in enumerate(merges, 256)]
    whole = Vocabulary(size=256 + len(made), byte_ids=list(range(256)), merges=made, special={}, eot=None)
    return {piece: token for token, piece in token_bytes(whole).items()}


def _learn(n_merges: int, text: Iterator[str]) -> list[Merge]:
    """Merges as pairs of our ids, most frequent first."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)  # splits as GPT-2 does
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = byte_level
    trainer = trainers.BpeTrainer(
        vocab_size=256 + n_merges,
        initial_alphabet=byte_level.alphabet(),  # else a byte that the text lacks could never be encoded
        special_tokens=[],
        max_token_length=MAX_TOKEN_BYTES,
        show_progress=sys.stderr.isatty(),
    )
    words = (part for piece in text for part in cut_runs(piece))
    interruptible(lambda parts: tokenizer.train_from_iterator(parts, trainer), words)
    return _to_ids(json.loads(tokenizer.to_str())["model"]["merges"])


def _to_ids(merges: list[list[str]]) -> list[Merge]:
    """The trainer's merges of strings over byte symbols -> merges of our ids."""
    ids = dict(zip(byte_symbols(), range(256), strict=True))
    result = []
    for left, right in merges:
        # Two merges may make the same token ("ab"+"c", "a"+"bc"); tiktoken goes by the bytes, so one is enough.
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


Implementation = BPETokenizer
