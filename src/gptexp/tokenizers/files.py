"""A byte-level BPE vocabulary from Hugging Face's files, tokenizer.json or vocab.json and merges.txt.

The tokenizers library encodes with the vocabulary and the merges of the files, so the tokens are those of
transformers. Unlike the other kinds, the ids may lie anywhere, and some may have no meaning: the embedding matrix of a
model is often a little larger than its vocabulary. Special strings inside a text are ordinary text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gptexp.config.tokenizer import FilesTokenizerConfig
from gptexp.tokenizers import load_tokenizer
from gptexp.tokenizers.base import Tokenizer, require_keys
from gptexp.tokenizers.byte_level import END_OF_TEXT, Vocabulary, bpe_model, token_bytes
from gptexp.tokenizers.byte_pair import BytePairTokenizer
from gptexp.tokenizers.huggingface_files import has_files, read_state, sha256_of
from gptexp.util.files import user_path


class FilesTokenizer(BytePairTokenizer):
    kind = "files"

    def __init__(self, vocabulary: Vocabulary) -> None:
        import tokenizers

        pieces = token_bytes(vocabulary)
        super().__init__([pieces.get(token, b"") for token in range(vocabulary.size)], eot=vocabulary.eot)
        self._vocabulary = vocabulary
        self._encoder = tokenizers.Tokenizer(bpe_model(vocabulary))
        self._encoder.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)

    def _encode_part(self, text: str) -> np.ndarray:
        # A batch of one: unlike `encode`, it releases Python's lock and computes no offsets.
        (encoding,) = self._encoder.encode_batch_fast([text], add_special_tokens=False)
        return np.array(encoding.ids, dtype=np.int32)

    def vocabulary(self) -> Vocabulary:
        return self._vocabulary

    @property
    def eot_text(self) -> str:
        return next((text for text, token in self._vocabulary.special.items() if token == self.eot), END_OF_TEXT)

    @classmethod
    def check(cls, config: FilesTokenizerConfig) -> None:
        _state(config)

    @classmethod
    def train(cls, config: FilesTokenizerConfig, train_text: Iterable[str], whole_text: Iterable[str]) -> Tokenizer:
        """The tokenizer in the files: of this kind, or of another kind with the same vocabulary (gpt2, say)."""
        return load_tokenizer(_state(config))

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> FilesTokenizer:
        require_keys(state, "size", "byte_ids", "merges", "special", "eot")
        special, eot, size = state["special"], state["eot"], state["size"]
        valid = _are_integers(state["byte_ids"], size) and (eot is None or type(eot) is int)
        if (
            not valid
            or not isinstance(state["merges"], list)
            or not all(_are_integers(m, 3, 3) for m in state["merges"])
        ):
            raise ValueError("a saved files tokenizer has ids: of bytes, of merges as [left, right, made], of its end")
        if not isinstance(special, dict) or not all(isinstance(name, str) for name in special):
            raise ValueError("a saved files tokenizer has special tokens: their names and ids")
        if not _are_integers(list(special.values()), size):
            raise ValueError("a saved files tokenizer has special tokens: their names and ids")
        merges = [(left, right, made) for left, right, made in state["merges"]]
        return cls(
            Vocabulary(size=size, byte_ids=list(state["byte_ids"]), merges=merges, special=dict(special), eot=eot)
        )

    def state_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **self._vocabulary.as_plain()}


def _state(config: FilesTokenizerConfig) -> dict[str, Any]:
    """Read the files. ValueError: they are missing, are not valid, or have changed since they were chosen."""
    if not config.path.strip():
        raise ValueError("tokenizer.path=: give the folder of a tokenizer.json, or of vocab.json and merges.txt")
    folder = user_path(config.path, "tokenizer.path")
    if not has_files(folder):
        raise ValueError(f"tokenizer.path={config.path}: no tokenizer.json in it, nor vocab.json and merges.txt")
    state = read_state(folder)
    if config.sha256 and sha256_of(folder) != config.sha256:
        raise ValueError(
            f"tokenizer.path={config.path}: its files do not match tokenizer.sha256; restore the files of that run"
        )
    return state


def _are_integers(values: object, most: object, least: int = 0) -> bool:
    """Whether this is a list of `least` to `most` integers."""
    if not isinstance(values, list | tuple) or type(most) is not int:
        return False
    return least <= len(values) <= most and all(type(value) is int for value in values)
