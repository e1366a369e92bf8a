"""Texts with one label each: rows of csv, tsv, json(l) or parquet files, or of a data set on the Hub."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gptexp.config.data import FILE_FORMATS, HuggingFaceConfig, LabelledConfig
from gptexp.data.corpora._files import find_files
from gptexp.data.corpora._reading import Contents, Stamps, as_document, clean, cut_pieces, hash_contents
from gptexp.data.corpora._rows import explain, open_rows, require_rows
from gptexp.data.corpora.base import CorpusBase
from gptexp.data.corpora.huggingface import HuggingFaceCorpus
from gptexp.util.files import user_path

BUILDERS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}

Label = str | int
Row = tuple[str, Label]


class LabelledCorpus(CorpusBase):
    """The text of each row is a document; `rows` also gives the labels."""

    config: LabelledConfig

    def __init__(self, config: Any, cache: Path) -> None:
        super().__init__(config, cache)
        self._stamps = Stamps([])

    def check(self) -> None:
        """ValueError: `datasets` is not installed, or a file or data set is missing or of an unknown kind."""
        if importlib.util.find_spec("datasets") is None:
            raise ValueError("data=labelled: requires the package datasets; install it with: pip install datasets")
        if self.config.dataset in FILE_FORMATS:
            raise ValueError(f"data.dataset={self.config.dataset}: use data.path for local files")
        if self.config.dataset:
            self._hub("train").check()
        for setting, path in self._paths():
            require_files(f"data.{setting}", path)

    def fingerprint(self) -> str:
        """Hash the contents of the files, and the settings that select from them."""
        c = self.config
        names = [c.dataset, c.subset, c.split, c.val_split, c.revision, c.text_column, c.label_column]
        names += [c.encoding] if c.encoding != "utf-8" else []
        counts = [str(len(require_files(f"data.{setting}", path))) for setting, path in self._paths()]
        files = [file for setting, path in self._paths() for file in require_files(f"data.{setting}", path)]
        self._stamps = Stamps(files)
        return hash_contents(map(Contents().chunks, files), "labelled 1", *map(str, names), *counts)

    def require_unchanged(self) -> None:
        self._stamps.require_unchanged()

    def pieces(self) -> Iterator[tuple[bool, str]]:
        for text, _ in self.rows("train"):
            yield from as_document(cut_pieces([text]))

    @property
    def has_val(self) -> bool:
        """Whether validation has separate files or a separate split."""
        return bool(self.config.val_path or self.config.val_split)

    def rows(self, part: str) -> Iterator[Row]:
        """Yield the rows of `train` or `val` that have a text and a label, in the source's order.

        Raises:
            ValueError: a column is missing or has another type, or a file is unreadable.
        """
        stream, place = self._stream(part)
        text_column, label_column = self.config.text_column, self.config.label_column
        number = dropped = 0
        for number, row in enumerate(stream, 1):
            for setting, column in {"text_column": text_column, "label_column": label_column}.items():
                if column not in row:
                    raise ValueError(f"data.{setting}={column}: no such column in {place}; there are {', '.join(row)}")
            text, label = row[text_column], row[label_column]
            if text is not None and not isinstance(text, str):
                kind = type(text).__name__
                raise ValueError(f"{place}: row {number}: data.text_column={text_column} has {kind}, not text")
            text = clean(text or "")
            if text and not _missing(label):
                yield text, _label(label, f"{place}: row {number}: data.label_column={label_column}")
            else:
                dropped += 1
        if dropped:
            warnings.warn(
                f"{place}: {dropped:,} of {number:,} rows lack a text or a label and are skipped", stacklevel=2
            )

    def _paths(self) -> list[tuple[str, str]]:
        """Return the settings that name files, with their values."""
        return [(name, path) for name in ("path", "val_path") if (path := getattr(self.config, name))]

    def _stream(self, part: str) -> tuple[Any, str]:
        """Return the rows as `datasets` reads them, and their source for an error message."""
        if self.config.dataset:
            corpus = self._hub(part)
            stream = corpus._load()
            place = f"data.dataset={self.config.dataset}"
            return _guarded(_with_names(stream, self.config.label_column), place), place
        setting = "path" if part == "train" else "val_path"
        path = getattr(self.config, setting)
        columns, place = (self.config.text_column, self.config.label_column), f"data.{setting}={path}"
        files = require_files(f"data.{setting}", path)
        return _read_files(files, columns, place, self.cache, self.config.encoding, "data.encoding"), place

    def _hub(self, part: str) -> HuggingFaceCorpus:
        c = self.config
        split = c.split if part == "train" else c.val_split
        hub = HuggingFaceConfig(dataset=c.dataset, subset=c.subset, split=str(split), revision=c.revision)
        return HuggingFaceCorpus(hub, self.cache)


def texts_of(path: str, column: str, encoding: str = "utf-8") -> Iterator[str]:
    """Yield the texts of a file's rows. ValueError: no such column, or a row has no text."""
    place, files = f"--file={path}", require_files("--file", path)
    with TemporaryDirectory() as cache:
        rows = _read_files(files, (column,), place, Path(cache), encoding, "--encoding")
        for number, row in enumerate(rows, 1):
            if column not in row:
                raise ValueError(
                    f"{place}: no column {column}; there are {', '.join(row)}; choose one with --text-column"
                )
            if not isinstance(row[column], str) or not clean(row[column]):
                raise ValueError(f"{place}: row {number} has no text in {column}")
            yield clean(row[column])


def require_files(setting: str, path: str) -> list[Path]:
    """Return the files that a setting names. ValueError: no file, an unknown kind, or several kinds."""
    known = ", ".join(BUILDERS)
    if user_path(path, setting).is_dir():
        raise ValueError(f"{setting}={path}: is a folder; name a file or a glob in it ({known})")
    files = find_files(path, setting)
    if not files:
        raise ValueError(f"{setting}={path}: no such file (looked in {Path.cwd()})")
    kinds = {file.suffix.lower(): file for file in files}
    if unknown := [file for suffix, file in kinds.items() if suffix not in BUILDERS]:
        raise ValueError(f"{setting}={path}: {unknown[0]}: unknown kind of file; give one of {known}")
    if len(kinds) > 1:
        raise ValueError(f"{setting}={path}: names files of several kinds ({', '.join(sorted(kinds))}); give one kind")
    return files


def _read_files(
    files: list[Path], columns: tuple[str, ...], place: str, cache: Path, encoding: str, setting: str
) -> Iterator[dict[str, Any]]:
    """Yield the rows of files of one kind. ValueError: the place of what can't be read."""
    builder = BUILDERS[files[0].suffix.lower()]
    require_rows(builder, files, encoding, setting)
    try:
        yield from open_rows(builder, files, columns, encoding, cache)
    except Exception as error:  # many kinds, from four packages
        explain(error, files, encoding, setting)
        raise _unreadable(place, error) from error


def _guarded(rows: Any, place: str) -> Iterator[dict[str, Any]]:
    """Yield the rows; an error becomes a ValueError of one line."""
    iterator = iter(rows)
    while True:
        try:
            row = next(iterator, None)
        except Exception as error:  # many kinds, from four packages
            if str(error).startswith(place):
                raise
            raise _unreadable(place, error) from error
        if row is None:
            return
        yield row


def _unreadable(place: str, error: Exception) -> ValueError:
    cause = error.__cause__ or error
    line = next((line.strip() for line in str(cause).splitlines() if line.strip()), "")
    return ValueError(f"{place}: can't be read ({type(cause).__name__}: {line[:200]})")


def _missing(label: object) -> bool:
    return label is None or label == "" or (isinstance(label, float) and math.isnan(label))


def _label(value: object, place: str) -> Label:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, (int, str)):
        return value
    text = f"{value!r}"[:40]
    raise ValueError(f"{place} is {text}, a {type(value).__name__}; a label must be text or a whole number")


def _with_names(stream: Any, column: str) -> Iterator[dict[str, Any]]:
    """Replace labels by their names if the description of the data set has names."""
    names = getattr((stream.features or {}).get(column), "names", None) or []
    for row in stream:
        label = row.get(column)
        yield {**row, column: names[label]} if type(label) is int and 0 <= label < len(names) else row
