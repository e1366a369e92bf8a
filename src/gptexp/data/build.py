"""Making a folder of token shards: train the tokenizer, tokenise, write the manifest; streams can be resumed."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptexp.config.data import DataConfig
from gptexp.config.tokenizer import TokenizerConfig
from gptexp.data.corpora import CorpusBase, StreamBase
from gptexp.data.shards import TokenStore
from gptexp.data.split import DocumentSplit, Piece, by_characters
from gptexp.data.tokenise import Part, tokenise
from gptexp.tokenizers import Tokenizer, load_tokenizer, train_tokenizer
from gptexp.util.files import atomic_write


@dataclass(frozen=True, slots=True)
class _Bar:
    """Where progress goes: characters of text done."""

    total: int | None
    shown: bool

    @contextmanager
    def over(self, batches: Iterator[int]) -> Iterator[Iterator[int]]:
        if not (self.shown and sys.stderr.isatty()):
            yield batches
            return
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("tokenizing", total=self.total)
            yield _advancing(batches, lambda n: bar.advance(task, n))


def _advancing(batches: Iterator[int], advance: Any) -> Iterator[int]:
    for size in batches:
        advance(size)
        yield size


def build(
    folder: Path,
    header: dict[str, Any],
    data: DataConfig,
    corpus: CorpusBase,
    tokenizer: TokenizerConfig | Tokenizer,
    progress: bool,
) -> None:
    """Fill the folder; header goes into the manifest as it is. The caller holds the folder's lock."""
    if isinstance(corpus, StreamBase):
        _build_stream(folder, header, data, corpus, tokenizer, progress)
    else:
        _build_text(folder, header, data, corpus, tokenizer, progress)


def _build_text(
    folder: Path,
    header: dict[str, Any],
    data: DataConfig,
    corpus: CorpusBase,
    tokenizer: TokenizerConfig | Tokenizer,
    progress: bool,
) -> None:
    """A corpus with an end: its characters are counted, then the last ones are validation."""
    _start_over(folder)
    total = sum(len(text) for _, text in corpus.pieces())
    n_train = int(total * data.train_fraction)
    if not isinstance(tokenizer, Tokenizer):
        train_text = (piece.text for piece in by_characters(corpus, n_train, 0))
        tokenizer = train_tokenizer(tokenizer, train_text, (text for _, text in corpus.pieces()))
    train, val = _parts(folder, data, tokenizer)
    batches = tokenise(by_characters(corpus, n_train, data.val_bytes), tokenizer, train, val)
    with train.writer, val.writer, _Bar(total, progress).over(batches) as shown:
        for _ in shown:
            pass
    _save_tokenizer(folder, tokenizer)
    _finish(folder, header, corpus, tokenizer, train, val)


def _build_stream(
    folder: Path,
    header: dict[str, Any],
    data: DataConfig,
    corpus: StreamBase,
    tokenizer: TokenizerConfig | Tokenizer,
    progress: bool,
) -> None:
    """A corpus without an end: reading stops when both parts are full, and goes on after an interruption."""
    state = _load_progress(folder, header)
    tokenizer = _stream_tokenizer(folder, data, corpus, tokenizer, resumed=bool(state))
    assert data.val_bytes is not None  # the schema of streams demands it
    train, val = _parts(folder, data, tokenizer)
    split = DocumentSplit(data.val_fraction, data.val_bytes)
    with train.writer, val.writer:
        if state:
            train.load_state_dict(state["train"])
            val.load_state_dict(state["val"])
            corpus.load_state_dict(state["stream"])
            split = DocumentSplit(data.val_fraction, data.val_bytes - val.bytes, state["val_full"])
        batches = tokenise(_stream_pieces(corpus, split, train), tokenizer, train, val)
        with _Bar(None, progress).over(batches) as shown:
            finished = _finished(train, val)
            for _ in shown:
                if _finished(train, val) > finished:
                    finished = _finished(train, val)
                    _save_progress(folder, header, corpus, split, train, val)
    _finish(folder, header, corpus, tokenizer, train, val)


def _stream_pieces(corpus: StreamBase, split: DocumentSplit, train: Part) -> Iterator[Piece]:
    for _, text in corpus.pieces():
        if piece := split.assign(text):
            yield piece
        if split.val_full and train.full:
            return


def _stream_tokenizer(
    folder: Path, data: DataConfig, corpus: StreamBase, tokenizer: TokenizerConfig | Tokenizer, resumed: bool
) -> Tokenizer:
    if resumed:
        return load_tokenizer(json.loads((folder / "tokenizer.json").read_bytes()))
    _start_over(folder)
    if not isinstance(tokenizer, Tokenizer):
        train_text = (piece.text for piece in _stream_text(corpus, data) if not piece.val)
        tokenizer = train_tokenizer(tokenizer, train_text, (piece.text for piece in _stream_text(corpus, data)))
    _save_tokenizer(folder, tokenizer)
    return tokenizer


def _stream_text(corpus: StreamBase, data: DataConfig) -> Iterator[Piece]:
    """The text to train a tokenizer on: what is tokenised if a character is a token, so max_tokens characters."""
    assert data.val_bytes is not None
    split = DocumentSplit(data.val_fraction, data.val_bytes)
    room = data.max_tokens
    for _, text in corpus.pieces():
        piece = split.assign(text)
        if piece is not None and piece.val:
            yield piece
        elif piece is not None and (room is None or room > 0):
            yield Piece(False, True, text if room is None else text[:room])
            room = None if room is None else room - len(text)
        if split.val_full and room is not None and room <= 0:
            return


def _parts(folder: Path, data: DataConfig, tokenizer: Tokenizer) -> tuple[Part, Part]:
    return Part(folder, "train", tokenizer, data.max_tokens), Part(folder, "val", tokenizer)


def _finished(train: Part, val: Part) -> int:
    return len(train.writer.shards) + len(val.writer.shards)


def _start_over(folder: Path) -> None:
    """An empty folder: what lies in one without a manifest was never finished."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _save_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    atomic_write(folder / "tokenizer.json", json.dumps(tokenizer.state_dict()).encode())


def _save_progress(
    folder: Path, header: dict[str, Any], corpus: StreamBase, split: DocumentSplit, train: Part, val: Part
) -> None:
    """Everything the next process needs: the stream's place, finished shards, the tokens of those begun."""
    state = {
        **header,
        "stream": corpus.state_dict(),
        "val_full": split.val_full,
        "train": train.state_dict(),
        "val": val.state_dict(),
    }
    atomic_write(folder / "progress.json", json.dumps(state).encode())


def _load_progress(folder: Path, header: dict[str, Any]) -> dict[str, Any]:
    """What an interrupted process left for the same request; {} if nothing that can be used."""
    try:
        state = json.loads((folder / "progress.json").read_bytes())
    except (OSError, ValueError):
        return {}
    for stale in folder.glob(".*.tmp"):
        stale.unlink()
    return state if {name: state.get(name) for name in header} == header else {}


def _finish(
    folder: Path, header: dict[str, Any], corpus: CorpusBase, tokenizer: Tokenizer, train: Part, val: Part
) -> None:
    corpus.require_unchanged()
    manifest = {
        **header,
        "tokenizer": tokenizer.fingerprint,
        "text_sha256": _text_sha256(folder, tokenizer, val),
        "train": train.summary(),
        "val": val.summary(),
    }
    atomic_write(folder / "manifest.json", json.dumps(manifest, indent=1).encode())
    (folder / "progress.json").unlink(missing_ok=True)


def _text_sha256(folder: Path, tokenizer: Tokenizer, val: Part) -> str:
    """Hash of the text that the validation tokens stand for: as written, so it vouches for the tokens too."""
    store = TokenStore(folder, val.writer.shards, val.writer.dtype)
    digest = hashlib.sha256()
    for start in range(0, len(store), 1 << 20):
        digest.update(tokenizer.decode_bytes(store.read(start, start + (1 << 20))))
    return digest.hexdigest()
