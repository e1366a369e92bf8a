"""Make a folder of token shards: train the tokenizer, tokenize, write the manifest. An interrupted stream resumes."""

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
from gptexp.data.cache import read_tokenizer, request_digest, write_tokenizer
from gptexp.data.corpora.base import CorpusBase, StreamBase
from gptexp.data.manifest import Manifest
from gptexp.data.shards import TokenStore
from gptexp.data.split import DocumentSplit, Piece, by_characters
from gptexp.data.tokenizing import PartWriter, tokenize_pieces
from gptexp.tokenizers import Tokenizer, train_tokenizer
from gptexp.util.files import atomic_write

FORMAT = 1  # of the shards; part of every fingerprint
PROGRESS = "progress.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to prepare.

    source: fingerprint of the text and of all settings of the shards except the tokenizer. tokenizer: settings to make
    one, or a tokenizer. progress: show a progress bar on a terminal.
    """

    source: str
    data: DataConfig
    corpus: CorpusBase
    tokenizer: TokenizerConfig | Tokenizer
    progress: bool

    @property
    def header(self) -> dict[str, Any]:
        """What must be equal for an interrupted stream to be resumed."""
        return {"format": FORMAT, "request": request_digest(self.source, self.tokenizer), "source": self.source}


def make_shards(folder: Path, request: Request) -> None:
    """Fill the folder; the caller holds its lock."""
    if isinstance(request.corpus, StreamBase):
        _shard_stream(folder, request, request.corpus)
    else:
        _shard_text(folder, request)


def train_text(corpus: CorpusBase, data: DataConfig) -> Iterator[str]:
    """Yield the training part of a corpus in pieces, to train a tokenizer on."""
    if isinstance(corpus, StreamBase):
        yield from (piece.text for piece in _stream_text(corpus, data) if not piece.val)
    else:
        yield from first_characters(corpus, int(sum(map(len, whole_text(corpus, data))) * data.train_fraction))


def whole_text(corpus: CorpusBase, data: DataConfig) -> Iterator[str]:
    """Yield both parts of a corpus in pieces."""
    stream = isinstance(corpus, StreamBase)
    yield from (p.text for p in _stream_text(corpus, data)) if stream else (text for _, text in corpus.pieces())


def first_characters(corpus: CorpusBase, count: int) -> Iterator[str]:
    """Yield the first characters of a corpus in pieces."""
    return (piece.text for piece in by_characters(corpus.pieces(), count, 0))


def _shard_text(folder: Path, request: Request) -> None:
    """A corpus with an end: its characters are counted, and the last ones are validation."""
    start_over(folder)
    data, corpus, tokenizer = request.data, request.corpus, request.tokenizer
    total = sum(len(text) for _, text in corpus.pieces())
    n_train = int(total * data.train_fraction)
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = train_tokenizer(tokenizer, first_characters(corpus, n_train), whole_text(corpus, data))
    train, val = part_writers(folder, data, tokenizer)
    batches = tokenize_pieces(by_characters(corpus.pieces(), n_train, data.val_bytes), tokenizer, train, val)
    with train.writer, val.writer, _progress_bar(batches, total, request.progress) as advancing:
        for _ in advancing:
            pass
    write_tokenizer(folder, tokenizer)
    finish(folder, request, tokenizer, train, val)


def _shard_stream(folder: Path, request: Request, corpus: StreamBase) -> None:
    """A corpus without a known end: reading stops when both parts are full, and resumes after an interruption."""
    state, data = _load_progress(folder, request.header), request.data
    tokenizer = _stream_tokenizer(folder, request, corpus, resumed=bool(state))
    assert data.val_bytes is not None  # the settings of a stream require it
    train, val = part_writers(folder, data, tokenizer)
    split = DocumentSplit(data.val_fraction, data.val_bytes)
    with train.writer, val.writer:
        if state:
            train.load_state_dict(state["train"])
            val.load_state_dict(state["val"])
            corpus.load_state_dict(state["stream"])
            split = DocumentSplit(data.val_fraction, data.val_bytes - val.bytes, state["val_full"])
        batches = tokenize_pieces(_stream_pieces(corpus, split, train), tokenizer, train, val)
        with _progress_bar(batches, None, request.progress) as advancing:
            finished = _finished(train, val)
            for _ in advancing:
                if _finished(train, val) > finished:
                    finished = _finished(train, val)
                    _save_progress(folder, request.header, corpus, split, train, val)
    finish(folder, request, tokenizer, train, val)


def _stream_pieces(corpus: StreamBase, split: DocumentSplit, train: PartWriter) -> Iterator[Piece]:
    for _, text in corpus.pieces():
        if piece := split.assign(text):
            yield piece
        if split.val_full and train.full:
            return


def _stream_tokenizer(folder: Path, request: Request, corpus: StreamBase, resumed: bool) -> Tokenizer:
    if resumed:
        return read_tokenizer(folder)
    start_over(folder)
    tokenizer, data = request.tokenizer, request.data
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = train_tokenizer(tokenizer, train_text(corpus, data), whole_text(corpus, data))
    write_tokenizer(folder, tokenizer)
    return tokenizer


def _stream_text(corpus: CorpusBase, data: DataConfig) -> Iterator[Piece]:
    """The text to train a tokenizer on: max_tokens characters, which are enough if each token is one character."""
    assert data.val_bytes is not None
    split = DocumentSplit(data.val_fraction, data.val_bytes)
    left = data.max_tokens
    for _, text in corpus.pieces():
        piece = split.assign(text)
        if piece is not None and piece.val:
            yield piece
        elif piece is not None and (left is None or left > 0):
            yield Piece(False, True, text if left is None else text[:left])
            left = None if left is None else left - len(text)
        if split.val_full and left is not None and left <= 0:
            return


def part_writers(folder: Path, data: DataConfig, tokenizer: Tokenizer) -> tuple[PartWriter, PartWriter]:
    """Return the writers of training and validation."""
    return PartWriter(folder, "train", tokenizer, data.max_tokens), PartWriter(folder, "val", tokenizer)


def _finished(train: PartWriter, val: PartWriter) -> int:
    return len(train.writer.shards) + len(val.writer.shards)


def start_over(folder: Path) -> None:
    """Empty the folder: the content of a folder without a manifest is incomplete."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


@contextmanager
def _progress_bar(batches: Iterator[int], total: int | None, wanted: bool) -> Iterator[Iterator[int]]:
    """Give the batches, which are numbers of characters, and show on a terminal how many are done."""
    if not (wanted and sys.stderr.isatty()):
        yield batches
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("tokenizing", total=total)

        def advancing() -> Iterator[int]:
            for size in batches:
                bar.advance(task, size)
                yield size

        yield advancing()


def _save_progress(
    folder: Path, header: dict[str, Any], corpus: StreamBase, split: DocumentSplit, train: PartWriter, val: PartWriter
) -> None:
    """Write what the next process needs: the position in the stream, the shards, the tokens of unfinished shards."""
    state = {
        **header,
        "stream": corpus.state_dict(),
        "val_full": split.val_full,
        "train": train.state_dict(),
        "val": val.state_dict(),
    }
    atomic_write(folder / PROGRESS, json.dumps(state).encode())


def _load_progress(folder: Path, header: dict[str, Any]) -> dict[str, Any]:
    """Read what an interrupted process left for the same request; {} if nothing is usable."""
    try:
        state: dict[str, Any] = json.loads((folder / PROGRESS).read_bytes())
    except (OSError, ValueError):
        return {}
    for unfinished in folder.glob(".*.tmp"):
        unfinished.unlink()
    return state if {name: state.get(name) for name in header} == header else {}


def finish(folder: Path, request: Request, tokenizer: Tokenizer, train: PartWriter, val: PartWriter) -> None:
    """Write the manifest, which declares the folder complete. ValueError: the text has changed."""
    request.corpus.require_unchanged()
    Manifest(
        source=request.source,
        tokenizer=tokenizer.fingerprint,
        text_sha256=_text_sha256(folder, tokenizer, val),
        train=train.summary(),
        val=val.summary(),
    ).write(folder)
    (folder / PROGRESS).unlink(missing_ok=True)


def _text_sha256(folder: Path, tokenizer: Tokenizer, val: PartWriter) -> str:
    """Hash of the text of the validation tokens, decoded from the shards, so that it verifies the tokens too."""
    store = TokenStore(folder, val.writer.shards, val.writer.dtype)
    digest = hashlib.sha256()
    for start in range(0, len(store), 1 << 20):
        digest.update(tokenizer.decode_bytes(store.read(start, start + (1 << 20))))
    return digest.hexdigest()
