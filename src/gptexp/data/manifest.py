"""The manifest of a cache folder. It is written last, so a folder without one is incomplete."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gptexp.data.corpora.labelled import Label
from gptexp.data.shards import Shard
from gptexp.util.files import atomic_write

FILE = "manifest.json"
SCHEMA = 1  # a manifest without a schema number has schema 1
COLUMNS = ("shards", "tokens", "lengths", "labels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Training or validation.

    columns: shard files by column; `shards` for a text, `tokens`, `lengths` and `labels` for labelled texts.
    bytes: UTF-8 bytes of the text. documents: how many begin in it. cuts_runs: whether words were so long that the
    tokenizer cut them.
    """

    columns: dict[str, list[Shard]]
    bytes: int
    documents: int
    cuts_runs: bool

    def as_plain(self) -> dict[str, Any]:
        columns = {name: [asdict(shard) for shard in shards] for name, shards in self.columns.items()}
        return {**columns, "bytes": self.bytes, "documents": self.documents, "cuts_runs": self.cuts_runs}

    @classmethod
    def from_plain(cls, plain: dict[str, Any], cuts_runs: bool) -> Part:
        """Read a part. cuts_runs: the value where the part has none."""
        return cls(
            columns={name: [Shard(**shard) for shard in plain[name]] for name in COLUMNS if name in plain},
            bytes=plain["bytes"],
            documents=plain.get("documents", 0),
            cuts_runs=plain.get("cuts_runs", cuts_runs),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a cache folder contains.

    source: fingerprint of the text and of all settings of the shards except the tokenizer. tokenizer: its fingerprint.
    text_sha256: of what validation scores. labels: all labels, sorted; None for a text.
    """

    source: str
    tokenizer: str
    text_sha256: str
    train: Part
    val: Part
    labels: list[Label] | None = None
    schema: int = SCHEMA

    @property
    def cuts_runs(self) -> bool:
        return self.train.cuts_runs or self.val.cuts_runs

    def write(self, folder: Path) -> None:
        """Write the manifest atomically, which declares the folder complete."""
        plain = {name: getattr(self, name) for name in ("schema", "source", "tokenizer", "text_sha256", "labels")}
        plain |= {"train": self.train.as_plain(), "val": self.val.as_plain()}
        atomic_write(folder / FILE, json.dumps(plain, indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a folder. ValueError: it is missing, damaged or of a later schema."""
        try:
            plain = json.loads((folder / FILE).read_bytes())
            schema, cuts_runs = plain.get("schema", 1), plain.get("cuts_runs", False)
            if schema > SCHEMA:
                raise damaged(folder / FILE, f"has schema {schema}, and this gptexp reads {SCHEMA}")
            return cls(
                source=plain["source"],
                tokenizer=plain["tokenizer"],
                text_sha256=plain["text_sha256"],
                train=Part.from_plain(plain["train"], cuts_runs),
                val=Part.from_plain(plain["val"], cuts_runs),
                labels=plain.get("labels"),
                schema=schema,
            )
        except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
            raise damaged(folder / FILE) from None


def damaged(path: Path, problem: str = "is damaged") -> ValueError:
    """Return the error for a file of a cache folder that can't be used."""
    return ValueError(f"{path} {problem}; delete the folder {path.parent}, it is rebuilt")
