"""A byte-level BPE vocabulary out of Hugging Face's files: tokenizer.json, or vocab.json and merges.txt.

Unlike the other kinds, ids may stand anywhere, special tokens at the front, too, and some may mean nothing: a
model's matrix is often a little larger than its vocabulary. Special strings met in a text are ordinary text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gptexp.config.tokenizer import FilesTokenizerConfig
from gptexp.tokenizers import END_OF_TEXT, Tokenizer, load_tokenizer, require_keys
from gptexp.tokenizers._byte_level import Vocabulary, token_bytes
from gptexp.tokenizers._tiktoken import TiktokenTokenizer
from gptexp.tokenizers.huggingface_files import has_files, read_state, sha256_of
from gptexp.util.files import user_path


class FilesTokenizer(TiktokenTokenizer):
    kind = "files"

    def __init__(self, vocabulary: Vocabulary) -> None:
        pieces = token_bytes(vocabulary)
        ranks = {piece: rank for rank, piece in enumerate(pieces.values())}
        table = [pieces.get(token, b"") for token in range(vocabulary.size)]
        super().__init__(ranks, ids=list(pieces), table=table, eot=vocabulary.eot)
        self.vocabulary = vocabulary

    @property
    def eot_text(self) -> str:
        return next((text for text, token in self.vocabulary.special.items() if token == self.eot), END_OF_TEXT)

    @classmethod
    def check(cls, config: FilesTokenizerConfig) -> None:
        _state(config)

    @classmethod
    def train(cls, config: FilesTokenizerConfig, train_text: Iterable[str], whole_text: Iterable[str]) -> Tokenizer:
        """The tokenizer in the files: of this kind, or of another that has just this vocabulary (gpt2, say)."""
        return load_tokenizer(_state(config))

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> FilesTokenizer:
        require_keys(state, "size", "byte_ids", "merges", "special", "eot")
        special, eot, size = state["special"], state["eot"], state["size"]
        whole = _are_whole(state["byte_ids"], size) and (eot is None or type(eot) is int)
        if not whole or not isinstance(state["merges"], list) or not all(_are_whole(m, 3, 3) for m in state["merges"]):
            raise ValueError("a saved files tokenizer has ids: of bytes, of merges as [left, right, made], of its end")
        if not isinstance(special, dict) or not all(isinstance(name, str) for name in special):
            raise ValueError("a saved files tokenizer has special tokens: their names and ids")
        if not _are_whole(list(special.values()), size):
            raise ValueError("a saved files tokenizer has special tokens: their names and ids")
        merges = [(left, right, made) for left, right, made in state["merges"]]
        return cls(
            Vocabulary(size=size, byte_ids=list(state["byte_ids"]), merges=merges, special=dict(special), eot=eot)
        )

    def state_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **self.vocabulary.as_plain()}


def _state(config: FilesTokenizerConfig) -> dict[str, Any]:
    """Read the files. ValueError: they aren't there, aren't what is meant, or have changed since."""
    if not config.path.strip():
        raise ValueError("tokenizer.path=: give the folder of a tokenizer.json, or of vocab.json and merges.txt")
    folder = user_path(config.path, "tokenizer.path")
    if not has_files(folder):
        raise ValueError(f"tokenizer.path={config.path}: no tokenizer.json in it, nor vocab.json and merges.txt")
    state = read_state(folder)
    if config.sha256 and sha256_of(folder) != config.sha256:
        raise ValueError(f"tokenizer.path={config.path}: its files aren't those that were chosen (tokenizer.sha256)")
    return state


def _are_whole(values: object, most: object, least: int = 0) -> bool:
    """Whether it is a list of so many whole numbers."""
    if not isinstance(values, list | tuple) or type(most) is not int:
        return False
    return least <= len(values) <= most and all(type(value) is int for value in values)


Implementation = FilesTokenizer
