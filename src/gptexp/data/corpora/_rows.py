"""Rows of local csv, json, text and parquet files."""

from __future__ import annotations

import codecs
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptexp.data.corpora._encodings import HEAD, is_compressed, require_no_nulls, require_text
from gptexp.data.corpora._reading import read_text


def require_rows(builder: str, files: list[Path], encoding: str, setting: str) -> None:
    """Refuse files whose first bytes show another format or encoding.

    Raises:
        ValueError: the file, and what it is.
    """
    for path in files if builder != "parquet" else ():
        with path.open("rb") as file:
            head = file.read(HEAD)
        require_text(path, head, compressed=True)
        if not is_compressed(head):
            text = codecs.getincrementaldecoder(encoding)(errors="replace").decode(head)
            require_no_nulls(path, text, head, encoding, setting)


def open_rows(
    builder: str,
    files: Sequence[Path | str],
    columns: tuple[str, ...],
    encoding: str,
    cache: Path,
    split: str = "train",
) -> Any:
    """Return the rows as a stream of `datasets`, whose position can be saved.

    files: paths or URLs. columns: the columns of a csv to read as text.
    """
    import datasets

    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # it also logs what it raises
    reading: dict[str, Any] = {} if builder == "parquet" else {"encoding": encoding}
    if builder == "csv":  # no column changes its type midway, and "NA" is text, not a missing value
        reading |= {"converters": dict.fromkeys(columns, str), "keep_default_na": False}
        reading |= {"sep": "\t"} if str(files[0]).lower().endswith(".tsv") else {}
    if builder == "text":
        reading |= {"keep_linebreaks": True}
    return datasets.load_dataset(
        builder,
        split=split,
        streaming=True,
        data_files=[str(file.absolute()) if isinstance(file, Path) else file for file in files],
        cache_dir=str(cache / "huggingface"),  # for lock files; a stream stores no text
        **reading,
    )


def explain(error: BaseException | None, files: list[Path], encoding: str, setting: str) -> None:
    """If the encoding is the cause of an error, raise one with file, place and likely encoding."""
    while error is not None:
        if isinstance(error, UnicodeError):
            for path in files:
                for _ in read_text(path, encoding, setting):
                    pass
        error = error.__cause__ or error.__context__
