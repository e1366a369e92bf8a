"""Any text data set that `datasets` streams: by name from the hub, or local text, json, csv and parquet files."""

from __future__ import annotations

import copy
import importlib.util
import logging
import os
import re
import socket
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptexp.config.data import FILE_FORMATS
from gptexp.data.corpora._files import find_files
from gptexp.data.corpora._reading import Contents, Stamps, clean, hash_contents
from gptexp.data.corpora._rows import explain, open_rows, require_rows
from gptexp.data.corpora.base import StreamBase
from gptexp.util.files import user_path

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class HuggingFaceCorpus(StreamBase):
    """The text of each row is a document, in the data set's order. Rows of text files are lines with their LF."""

    def __init__(self, config: Any, cache: Path) -> None:
        super().__init__(config, cache)
        self._stream: Any = None
        self._state: dict[str, Any] | None = None
        self._stamps = Stamps([])
        self._section: tuple[int, int] | None = None

    def check(self) -> None:
        """ValueError: `datasets` is not installed, the name is invalid, a file is missing, or there is no network."""
        if importlib.util.find_spec("datasets") is None:
            raise ValueError("data=huggingface: requires the package datasets; install it with: pip install datasets")
        if self.config.dataset in FILE_FORMATS:
            self._check_files()
        else:
            self._check_name()
            self._check_network()

    def fingerprint(self) -> str:
        """Hash the names and the revision, and the contents of local files."""
        c = self.config
        settings = [c.dataset, c.subset, c.split, c.text_column, c.revision, None if self._local else c.data_files]
        settings += [c.encoding] if c.encoding != "utf-8" else []
        version = "huggingface 2" if c.dataset == "csv" else "huggingface 1"  # 1 dropped cells such as "NA"
        files = self._files()
        self._stamps = Stamps(files)
        return hash_contents(map(Contents().chunks, files), version, *map(str, settings))

    def require_unchanged(self) -> None:
        self._stamps.require_unchanged()

    def pieces(self) -> Iterator[tuple[bool, str]]:
        self._stream = self._load() if self._section is None else self._load_section(*self._section)
        if self._state is not None:
            self._stream.load_state_dict(copy.deepcopy(self._state))
        kept = dropped = 0
        for row in self._rows():
            if text := clean(self._text(row)):
                kept += 1
                yield True, text
            else:
                dropped += 1
        if dropped and self.config.dataset != "text":  # its rows are lines
            column = f"data.text_column={self.config.text_column}"
            warnings.warn(
                f"{column}: {dropped:,} of {kept + dropped:,} rows have no text and are skipped", stacklevel=2
            )

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = copy.deepcopy(self._stream.state_dict())
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._state = state

    def section(self, number: int, count: int) -> HuggingFaceCorpus:
        """As for every stream. A section is at least one file, or one row group of a Parquet file."""
        self._load_section(number, count)  # refuses what can't be divided
        found = copy.copy(self)
        found._section = number, count
        return found

    def _load_section(self, number: int, count: int) -> Any:
        stream = self._load()
        if count > stream.num_shards and hasattr(stream, "reshard"):  # since datasets 4.6
            stream = stream.reshard()
        if count > (most := stream.num_shards):
            raise ValueError(
                f"prepare.parts={count}: data.dataset={self.config.dataset} can be divided into {most} parts at most, "
                f"files or row groups of Parquet files; use prepare.parts={most}"
            )
        return stream.shard(count, number, contiguous=True)

    def file_sizes(self) -> list[int]:
        return [path.stat().st_size for path in self._files()]

    @property
    def _local(self) -> bool:
        return self.config.dataset in FILE_FORMATS and "://" not in (self.config.data_files or "")

    def _files(self) -> list[Path]:
        return find_files(self.config.data_files, "data.data_files") if self._local else []

    def _check_files(self) -> None:
        if not self.config.data_files:
            raise ValueError(
                f"data.data_files={self.config.data_files}: data.dataset={self.config.dataset} reads local files; "
                'name them, for example data.data_files="texts/*.jsonl"'
            )
        if self._local and not self._files():
            raise ValueError(f"data.data_files={self.config.data_files}: no such file (looked in {Path.cwd()})")
        require_rows(self.config.dataset, self._files(), self.config.encoding, "data.encoding")

    def _check_name(self) -> None:
        name = self.config.dataset
        if name.endswith(".py") or user_path(name, "data.dataset").exists() or not HUB_NAME.fullmatch(name):
            raise ValueError(
                f"data.dataset={name}: must be a name on the Hub (owner/name) or one of {', '.join(FILE_FORMATS)} with "
                "data.data_files=; scripts and local folders are not supported"
            )

    def _check_network(self) -> None:
        """Resolve the host name of the Hub, because `datasets` retries for half a minute before it fails."""
        if urllib.request.getproxies() or os.environ.get("HF_ENDPOINT"):
            return  # a proxy or mirror resolves the name
        try:
            socket.getaddrinfo("huggingface.co", 443)
        except OSError as error:
            raise self._unreadable(error) from None

    def _load(self) -> Any:
        import datasets

        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries are not reported; the error is
        c = self.config
        try:
            if c.dataset in FILE_FORMATS:
                files = self._files() or [c.data_files]
                return open_rows(c.dataset, files, (c.text_column,), c.encoding, self.cache, c.split)
            return datasets.load_dataset(
                c.dataset,
                name=c.subset,
                split=c.split,
                streaming=True,
                data_files=c.data_files,
                revision=c.revision,
                cache_dir=str(self.cache / "huggingface"),  # for lock files; a stream stores no text
            )
        except Exception as error:  # many kinds, from four packages
            raise self._unreadable(error) from error

    def _rows(self) -> Iterator[dict[str, Any]]:
        rows = iter(self._stream)
        while True:
            try:
                row = next(rows, None)
            except Exception as error:  # a lost connection, a damaged file
                explain(error, self._files(), self.config.encoding, "data.encoding")
                raise self._unreadable(error) from error
            if row is None:
                return
            yield row

    def _text(self, row: dict[str, Any]) -> str:
        column = self.config.text_column
        if column not in row:
            raise ValueError(f"data.text_column={column}: no such column; there are {', '.join(row)}")
        if not isinstance(row[column], str | None):
            kind = type(row[column]).__name__
            raise ValueError(f"data.text_column={column}: holds {kind}, not text; columns are {', '.join(row)}")
        return row[column] or ""

    def _unreadable(self, error: Exception) -> ValueError:
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        if self._local:
            return ValueError(
                f"data.data_files={self.config.data_files}: can't be read as {self.config.dataset} ({reason})"
            )
        return ValueError(
            f"data.dataset={self.config.dataset}: can't be read from the Hugging Face Hub ({reason}). Check the name "
            "and the network; data=pydocs works without one, data.dataset=json data.data_files=… reads local files"
        )
