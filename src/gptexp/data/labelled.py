"""Labelled texts: the choice of validation texts, and a cache folder of tokens, lengths and labels.

All three columns are stored as token shards, so they are memory-mapped and verified whenever they are opened.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import xxhash

from gptexp.config.data import LabelledConfig
from gptexp.config.tokenizer import TokenizerConfig
from gptexp.data import shards
from gptexp.data.cache import data_fingerprint, digest, open_or_make, read_manifest, read_tokenizer, write_tokenizer
from gptexp.data.corpora import open_corpus
from gptexp.data.corpora.labelled import Label, LabelledCorpus, Row
from gptexp.data.examples import Examples, LabelledData
from gptexp.data.manifest import FILE, Manifest, Part, damaged
from gptexp.data.shards import ShardWriter, TokenStore, token_dtype
from gptexp.tokenizers import Tokenizer, needs_training, train_tokenizer

FORMAT = 1  # of the shards; part of every fingerprint
COLUMNS = ("tokens", "lengths", "labels")
LENGTHS = 2**32  # every text has fewer tokens
MOST_LABELS = 1_000  # a confusion matrix has the square of this number of cells


def prepare_labelled(data: LabelledConfig, tokenizer: TokenizerConfig | Tokenizer, cache: Path) -> LabelledData:
    """Open the labelled texts of a source, after preparing them if they are not in the cache.

    tokenizer: settings to make or train one, or a tokenizer to use as it is.

    Raises:
        ValueError: a column is missing, fewer than two labels, validation has a label that training lacks, …
    """
    corpus = open_corpus(data, cache)
    assert isinstance(corpus, LabelledCorpus)
    corpus.check()
    if not isinstance(tokenizer, Tokenizer) and not needs_training(tokenizer):
        tokenizer = train_tokenizer(tokenizer)
    settings = [str(data.val_fraction), data.val_bytes, data.max_tokens, data.split_seed]
    source = digest([corpus.fingerprint(), "examples", *settings, FORMAT, shards.SHARD_TOKENS])
    folder = open_or_make(cache, data, tokenizer, source, lambda folder: _make(folder, source, data, corpus, tokenizer))
    return _open(folder, source)


def _make(
    folder: Path, source: str, data: LabelledConfig, corpus: LabelledCorpus, tokenizer: TokenizerConfig | Tokenizer
) -> None:
    """Read all rows, choose the validation texts, tokenize. Labelled texts must fit into memory."""
    train, val = _parts(data, corpus)
    _label_list(data, train, val)
    if not isinstance(tokenizer, Tokenizer):
        texts = [text for text, _ in train]
        tokenizer = train_tokenizer(tokenizer, texts, [*texts, *(text for text, _ in val)])
    corpus.require_unchanged()
    train = _first_tokens(train, tokenizer, data.max_tokens)
    labels = _label_list(data, train, val)
    if folder.exists():  # without a manifest, so it is incomplete
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_tokenizer(folder, tokenizer)
    Manifest(
        source=source,
        tokenizer=tokenizer.fingerprint,
        text_sha256=hashlib.sha256(json.dumps(val, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest(),
        labels=labels,
        train=_write(folder, "train", train, labels, tokenizer),
        val=_write(folder, "val", val, labels, tokenizer),
    ).write(folder)


def _parts(data: LabelledConfig, corpus: LabelledCorpus) -> tuple[list[Row], list[Row]]:
    """Split the rows into training and validation, each sorted by a hash, so that the order of a file is irrelevant.

    Raises:
        ValueError: one of the parts is empty.
    """
    train = _hashed(corpus.rows("train"), data.split_seed)
    if corpus.has_val:
        val = _hashed(corpus.rows("val"), data.split_seed)
    else:
        train, val = split(train, data.val_fraction)
    place = f"data.path={data.path}" if data.path else f"data.dataset={data.dataset}"
    if not train:
        raise ValueError(f"{place}: has no row with a text in {data.text_column} and a label in {data.label_column}")
    if not val:
        raise ValueError(f"{place}: has no text for validation; each label needs at least two, or give data.val_path")
    rows = _whole_numbers([row for _, row in (*train, *val)])
    return rows[: len(train)], _first_bytes(rows[len(train) :], data.val_bytes)


Hashed = tuple[int, Row]


def _hashed(rows: Iterable[Row], seed: int) -> list[Hashed]:
    found = [(xxhash.xxh3_64_intdigest(row[0].encode("utf-8", "surrogatepass"), seed), row) for row in rows]
    return sorted(found, key=lambda pair: (pair[0], pair[1][0], str(pair[1][1])))


def split(rows: Sequence[Hashed], val_fraction: float) -> tuple[list[Hashed], list[Hashed]]:
    """Split rows, sorted by hash, into training and validation, separately for each label.

    Validation gets the texts with the smallest hashes: val_fraction of them to the nearest text, and at least one of
    two. Copies of a text stay in one part, so that no scored text was trained on. The last training text of a label
    stays in training.
    """
    left = Counter(label for _, (_, label) in rows)
    quota = {label: max(1, round(n * Decimal(str(val_fraction)))) for label, n in left.items()}
    train: list[Hashed] = []
    val: list[Hashed] = []
    for _, group in groupby(rows, key=itemgetter(0)):
        copies = list(group)
        of_label = Counter(label for _, (_, label) in copies)
        taken = quota[copies[0][1][1]] > 0 and all(left[label] > n for label, n in of_label.items())
        (val if taken else train).extend(copies)
        if taken:
            left.subtract(of_label)
            quota = {label: n - of_label[label] for label, n in quota.items()}
    return train, val


def _whole_numbers(rows: list[Row]) -> list[Row]:
    """Convert labels to numbers if all are whole numbers written as text, as in a csv.

    Raises:
        ValueError: some labels are words and others numbers.
    """
    kinds = {type(label) for _, label in rows}
    if kinds == {str, int}:
        word, number = (next(label for _, label in rows if type(label) is kind) for kind in (str, int))
        raise ValueError(f"data.label_column: holds words ({word!r}) and numbers ({number}); use only one of them")
    if kinds == {str} and all(_is_number(str(label)) for _, label in rows):
        return [(text, int(label)) for text, label in rows]
    return rows


def _is_number(text: str) -> bool:
    digits = text.removeprefix("-")
    return len(digits) < 19 and digits.isascii() and digits.isdecimal() and str(int(text)) == text


def _first_bytes(rows: list[Row], limit: int | None) -> list[Row]:
    """The first texts that have at most `limit` bytes together, at least one."""
    if limit is None:
        return rows
    ends = np.cumsum([len(text.encode("utf-8", "surrogatepass")) for text, _ in rows])
    return rows[: max(1, int(np.searchsorted(ends, limit, side="right")))]


def _label_list(data: LabelledConfig, train: list[Row], val: list[Row]) -> list[Label]:
    """All labels of the training part, sorted.

    Raises:
        ValueError: fewer than two, more than MOST_LABELS, or validation has one that training lacks.
    """
    counts = Counter(label for _, label in train)
    column = f"data.label_column={data.label_column}"
    if data.max_tokens is not None:
        column += f", data.max_tokens={data.max_tokens}"
    if len(counts) < 2:
        raise ValueError(
            f"{column}: the training texts all have the label {next(iter(counts))!r}; at least 2 are needed"
        )
    if len(counts) > MOST_LABELS:
        raise ValueError(
            f"{column}: has {len(counts):,} different labels, more than {MOST_LABELS:,}; is it the column?"
        )
    if unseen := Counter(label for _, label in val if label not in counts):
        label, number = unseen.most_common(1)[0]
        others = f", and {len(unseen) - 1} other labels" if len(unseen) > 1 else ""
        raise ValueError(
            f"{column}: validation has {number} text{'s' * (number > 1)} of {label!r}{others}, training none; "
            "give training texts of it, or remove it from validation"
        )
    return sorted(counts)


def _first_tokens(rows: list[Row], tokenizer: Tokenizer, limit: int | None) -> list[Row]:
    """The first texts that have at most `limit` tokens together, at least one."""
    if limit is None:
        return rows
    ends = np.cumsum([len(_encode(tokenizer, text)) for text, _ in rows])
    return rows[: max(1, int(np.searchsorted(ends, limit, side="right")))]


def _write(folder: Path, part: str, rows: list[Row], labels: list[Label], tokenizer: Tokenizer) -> Part:
    """Write the columns of a part."""
    place = {label: number for number, label in enumerate(labels)}
    sizes = {"tokens": tokenizer.vocab_size, "lengths": LENGTHS, "labels": max(len(labels), 2)}
    writers = {name: ShardWriter(folder, f"{part}-{name}", size) for name, size in sizes.items()}
    n_bytes = 0
    with writers["tokens"], writers["lengths"], writers["labels"]:
        for text, label in rows:
            tokens = _encode(tokenizer, text)
            n_bytes += len(text.encode())
            for name, values in zip(COLUMNS, (tokens, [len(tokens)], [place[label]]), strict=True):
                writers[name].write(np.asarray(values))
    return Part(
        columns={name: writer.shards for name, writer in writers.items()},
        bytes=n_bytes,
        documents=len(rows),
        cuts_runs=any(tokenizer.cuts_runs(text) for text, _ in rows),
    )


def _encode(tokenizer: Tokenizer, text: str) -> np.ndarray:
    try:
        return tokenizer.encode(text)
    except ValueError as error:
        raise ValueError(f"the text {text[:40]!r}: {error}") from None


def _open(folder: Path, source: str) -> LabelledData:
    """Open a complete folder. ValueError names what is damaged."""
    manifest = read_manifest(folder, source, *COLUMNS)
    if manifest.labels is None:
        raise damaged(folder / FILE)
    tokenizer, labels = read_tokenizer(folder, manifest.tokenizer), manifest.labels
    sizes = (tokenizer.vocab_size, LENGTHS, max(len(labels), 2))
    train, val = (_examples(folder, part, sizes) for part in (manifest.train, manifest.val))
    return LabelledData(
        tokenizer=tokenizer,
        labels=labels,
        train=train,
        val=val,
        fingerprint=data_fingerprint(manifest),
        text_sha256=manifest.text_sha256,
        train_text_bytes=manifest.train.bytes,
        val_text_bytes=manifest.val.bytes,
        folder=folder,
    )


def _examples(folder: Path, part: Part, sizes: tuple[int, int, int]) -> Examples:
    stores = [
        TokenStore(folder, part.columns[column], token_dtype(size)) for column, size in zip(COLUMNS, sizes, strict=True)
    ]
    for store in stores:
        store.verify()
    return Examples(*stores)
