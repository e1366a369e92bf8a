"""Token shards of a text: made once, stored in the cache, and verified whenever they are opened.

The folder is named by a fingerprint of everything that determines its content, so outdated tokens are never used. It
contains tokenizer.json, train-00000.bin …, val-00000.bin … and manifest.json.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gptexp.config.data import DataConfig
from gptexp.config.rules import require
from gptexp.config.tokenizer import TokenizerConfig
from gptexp.data import shards
from gptexp.data.cache import data_fingerprint, digest, open_or_make, read_manifest, read_tokenizer
from gptexp.data.corpora import CorpusBase, open_corpus
from gptexp.data.make_shards import FORMAT, Request, make_shards
from gptexp.data.order import WindowOrder
from gptexp.data.prepared import DataFacts
from gptexp.data.shards import TokenStore, token_dtype
from gptexp.tokenizers import Tokenizer, needs_training, train_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class TextData:
    """Tokens of one text by one tokenizer: a `PreparedData`.

    text_sha256: of the UTF-8 text that validation scores. Numbers of bytes do not count <|endoftext|>. documents: how
    many begin in the stores.
    """

    tokenizer: Tokenizer
    train: TokenStore
    val: TokenStore
    fingerprint: str
    text_sha256: str
    val_text_bytes: int
    train_text_bytes: int
    documents: int
    folder: Path

    @property
    def bytes_per_token(self) -> float:
        return self.train_text_bytes / len(self.train)

    def stores(self, split: str) -> dict[str, TokenStore]:
        """Return the tokens of a split, train or val, under the empty name: this is not a mixture of parts."""
        return {"": self.val if split == "val" else self.train}

    def order(self, block_size: int, seed: int) -> WindowOrder:
        """Return the order of the training windows."""
        return WindowOrder(len(self.train), block_size, seed)

    @property
    def facts(self) -> DataFacts:
        return DataFacts(fingerprint=self.fingerprint, text_sha256=self.text_sha256)


def prepare(
    data: DataConfig,
    tokenizer: TokenizerConfig | Tokenizer,
    cache: Path,
    progress: bool = True,
    *,
    block_size: int = 1,
    make: Callable[[Path, Request], None] | None = None,
) -> TextData:
    """Open the token shards of a corpus, after making them if they are not in the cache.

    Args:
        tokenizer: settings to make or train one, or a tokenizer to use as it is.
        progress: show a progress bar on a terminal.
        block_size: the training part must contain a window of this many tokens and its target.
        make: fills the folder, in place of `make_shards`.

    Raises:
        ValueError: no text, too little text for block_size, a damaged shard.
        OSError: the disk is full.
    """
    require(data.kind != "mixture", "data", data.kind, "has several corpora, and this needs one; give one of them")
    corpus = open_corpus(data, cache)
    corpus.check()
    if not isinstance(tokenizer, Tokenizer) and not needs_training(tokenizer):
        tokenizer = train_tokenizer(tokenizer)
    source = source_of(data, corpus)
    request = Request(source=source, data=data, corpus=corpus, tokenizer=tokenizer, progress=progress)
    folder = open_or_make(cache, data, tokenizer, source, lambda folder: (make or make_shards)(folder, request))
    prepared = _open(folder, source)
    _require_enough(data, prepared, block_size)
    return prepared


def source_of(data: DataConfig, corpus: CorpusBase) -> str:
    """Fingerprint of the text and of all settings of the shards except the tokenizer."""
    settings = [data.kind, str(data.val_fraction), data.val_bytes, data.max_tokens, FORMAT, shards.SHARD_TOKENS]
    return digest([corpus.fingerprint(), *settings])


def _open(folder: Path, source: str) -> TextData:
    """Open a complete folder. ValueError names what is damaged."""
    manifest = read_manifest(folder, source, "shards")
    tokenizer = read_tokenizer(folder, manifest.tokenizer)
    dtype = token_dtype(tokenizer.vocab_size)
    train, val = (TokenStore(folder, part.columns["shards"], dtype) for part in (manifest.train, manifest.val))
    for store in (train, val):
        store.verify()
    return TextData(
        tokenizer=tokenizer,
        train=train,
        val=val,
        fingerprint=data_fingerprint(manifest),
        text_sha256=manifest.text_sha256,
        val_text_bytes=manifest.val.bytes,
        train_text_bytes=manifest.train.bytes,
        documents=manifest.train.documents + manifest.val.documents,
        folder=folder,
    )


def _require_enough(data: DataConfig, prepared: TextData, block_size: int) -> None:
    """Refuse a text that has no window to train on, or no token to score."""
    n_train, n_val = len(prepared.train), len(prepared.val)
    if n_train < block_size + 1:
        limit = f", capped by data.max_tokens={data.max_tokens}" if data.max_tokens is not None else ""
        raise ValueError(
            f"data={data.kind}: the training part has {n_train} tokens{limit}, but model.block_size={block_size} "
            f"needs at least {block_size + 1}; give more text or a smaller model.block_size"
        )
    if n_val < 2:
        raise ValueError(
            f"data={data.kind}: the validation part has {n_val} tokens, at least 2 are needed; give more text, or a "
            f"larger data.val_fraction (now {data.val_fraction}) or data.val_bytes (now {data.val_bytes})"
        )
