"""Corpus and tokenizer -> a folder of token shards in the cache, made once and checked on every opening.

The folder is named by a fingerprint of everything that made it (law 2), so stale tokens can't be used.
Inside: tokenizer.json, train-00000.bin …, val-00000.bin …, and manifest.json, written last.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptexp.config.data import DataConfig
from gptexp.config.tokenizer import TokenizerConfig
from gptexp.data import shards
from gptexp.data.build import build
from gptexp.data.cache import data_fingerprint, digest, find, lock, read_json, saved_tokenizer, tokenizer_key
from gptexp.data.corpora import CorpusBase, open_corpus
from gptexp.data.shards import Shard, TokenStore, token_dtype
from gptexp.tokenizers import Tokenizer, needs_training, train_tokenizer

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedData:
    """Tokens of one corpus by one tokenizer.

    fingerprint: of the source bytes, the settings of the split and the tokenizer itself, so it is the
    same whether the tokenizer was trained here or came with a checkpoint. text_sha256: of the UTF-8
    text that validation scores. Bytes are UTF-8 bytes of the text in the stores, <|endoftext|> not
    counted; documents: those of which the stores hold the beginning.
    """

    tokenizer: Tokenizer
    train: TokenStore
    val: TokenStore
    fingerprint: str
    text_sha256: str
    val_bytes: int
    train_bytes: int
    documents: int
    folder: Path

    @property
    def train_tokens(self) -> int:
        return len(self.train)

    @property
    def facts(self) -> dict[str, Any]:
        """What an objective must know of its data besides the tokenizer; text alone has no more to say."""
        return {}


def prepare(
    data: DataConfig,
    tokenizer: TokenizerConfig | Tokenizer,
    cache: Path,
    progress: bool = True,
    *,
    block_size: int = 1,
) -> PreparedData:
    """Open the token shards of a corpus, after making them if they aren't in the cache.

    Of processes that ask at the same time one works and the others wait.

    Args:
        tokenizer: a config, to make or train one; or one that exists, to use as it is.
        block_size: the training part must hold a window of this many tokens and its target.

    Raises:
        ValueError: no text, too little text for block_size, a damaged shard.
        OSError: the disk is full.
    """
    corpus = open_corpus(data, cache)
    corpus.check()
    if not isinstance(tokenizer, Tokenizer) and not needs_training(tokenizer):
        tokenizer = train_tokenizer(tokenizer)
    source = _source(data, corpus)
    request = digest([source, tokenizer_key(tokenizer)])
    folder = find(cache, data, tokenizer, source) or cache / f"{data.kind}-{tokenizer.kind}-{request[:12]}"
    if not (folder / "manifest.json").exists():
        _make_once(folder, request, source, data, corpus, tokenizer, progress)
    prepared = _open(folder, source)
    _require_enough(data, prepared, block_size)
    return prepared


def _source(data: DataConfig, corpus: CorpusBase) -> str:
    """Fingerprint of the text and of everything about the shards but the tokenizer."""
    settings = [data.kind, str(data.val_fraction), data.val_bytes, data.max_tokens, FORMAT, shards.SHARD_TOKENS]
    return digest([corpus.fingerprint(), *settings])


def _make_once(
    folder: Path,
    request: str,
    source: str,
    data: DataConfig,
    corpus: CorpusBase,
    tokenizer: TokenizerConfig | Tokenizer,
    progress: bool,
) -> None:
    with lock(folder):
        if not (folder / "manifest.json").exists():
            print(f"preparing {data.kind} with {tokenizer.kind}: tokens go to {folder}", file=sys.stderr)
            build(folder, {"format": FORMAT, "request": request, "source": source}, data, corpus, tokenizer, progress)


def _open(folder: Path, source: str) -> PreparedData:
    """Read a finished folder. ValueError names what is damaged."""
    manifest = _manifest(folder, source)
    tokenizer = saved_tokenizer(folder, manifest["tokenizer"])
    dtype = token_dtype(tokenizer.vocab_size)
    stores = {
        part: TokenStore(folder, [Shard(**shard) for shard in manifest[part]["shards"]], dtype)
        for part in ("train", "val")
    }
    for store in stores.values():
        store.verify()
    return PreparedData(
        tokenizer=tokenizer,
        **stores,
        fingerprint=data_fingerprint(source, tokenizer, any(manifest[p].get("cuts_runs") for p in ("train", "val"))),
        text_sha256=manifest["text_sha256"],
        val_bytes=manifest["val"]["bytes"],
        train_bytes=manifest["train"]["bytes"],
        documents=manifest["train"]["documents"] + manifest["val"]["documents"],
        folder=folder,
    )


def _manifest(folder: Path, source: str) -> dict[str, Any]:
    manifest = read_json(folder / "manifest.json")
    parts = [manifest.get(part) for part in ("train", "val")]
    whole = all(isinstance(part, dict) and {"shards", "bytes", "documents"} <= set(part) for part in parts)
    if not whole or manifest.get("source") != source or not {"tokenizer", "text_sha256"} <= set(manifest):
        raise ValueError(f"{folder / 'manifest.json'} is damaged; delete the folder {folder}, it is rebuilt")
    return manifest


def _require_enough(data: DataConfig, prepared: PreparedData, block_size: int) -> None:
    """Refuse a text that has no window to train on, or nothing to score."""
    n_train, n_val = len(prepared.train), len(prepared.val)
    if n_train < block_size + 1:
        cap = f", capped by data.max_tokens={data.max_tokens}" if data.max_tokens is not None else ""
        raise ValueError(
            f"data={data.kind}: the training part has {n_train} tokens{cap}, but model.block_size={block_size} "
            f"needs at least {block_size + 1}; give more text or a smaller model.block_size"
        )
    if n_val < 2:
        raise ValueError(
            f"data={data.kind}: the validation part has {n_val} tokens, at least 2 are needed; give more text, or a "
            f"larger data.val_fraction (now {data.val_fraction}) or data.val_bytes (now {data.val_bytes})"
        )
