"""Settings of the corpora, and of the batches taken from them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from omegaconf import II

from gptexp.config.rules import nearest_multiples, require, require_at_least, require_encoding


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """What every corpus has. `kind` names the file under gptexp/data/corpora/."""

    kind: str = ""
    block_size: int = II("model.block_size")  # not to be set here: model.block_size is the one place
    val_fraction: float = 0.1  # share of the characters, from the end, that validation gets
    val_bytes: int | None = 65_536  # validation scores this much of its part; null: all of it
    max_tokens: int | None = None  # use at most so many training tokens
    global_batch_size: int | None = None  # windows an optimizer step, over all devices; null: 12
    global_batch_tokens: int | None = None  # the same in tokens, so that block sizes compare at equal tokens
    micro_batch_size: int | None = None  # windows a forward pass on one device; null: the largest that fits
    num_workers: int = 0

    def __post_init__(self) -> None:
        require(0 < self.val_fraction < 1, "data.val_fraction", self.val_fraction, "must be between 0 and 1")
        require_at_least(
            1, "data", self, "val_bytes", "max_tokens", "global_batch_size", "global_batch_tokens", "micro_batch_size"
        )
        require_at_least(0, "data", self, "num_workers")
        require(
            self.global_batch_size is None or self.global_batch_tokens is None,
            "data.global_batch_tokens",
            self.global_batch_tokens,
            f"data.global_batch_size={self.global_batch_size} says the same in windows; give one of the two",
        )
        if self.global_batch_tokens is not None:
            require(
                self.global_batch_tokens % self.block_size == 0,
                "data.global_batch_tokens",
                self.global_batch_tokens,
                f"must be a multiple of model.block_size={self.block_size}; "
                f"nearest: {nearest_multiples(self.global_batch_tokens, self.block_size)}",
            )

    @property
    def windows_per_step(self) -> int:
        """Sequences in one optimizer step, over all devices."""
        if self.global_batch_tokens is not None:
            return self.global_batch_tokens // self.block_size
        return 12 if self.global_batch_size is None else self.global_batch_size

    @property
    def train_fraction(self) -> Decimal:
        """1 - val_fraction, in decimal: 0.9 of a length is exact, where a float's 1 - 0.1 may not be."""
        return 1 - Decimal(str(self.val_fraction))


@dataclass(kw_only=True, slots=True)
class PydocsConfig(DataConfig):
    """The Python language reference that every CPython carries."""

    kind: str = "pydocs"


@dataclass(kw_only=True, slots=True)
class PythonStdlibConfig(DataConfig):
    """The sources of the standard library, without its tests."""

    kind: str = "python_stdlib"


@dataclass(kw_only=True, slots=True)
class TextConfig(DataConfig):
    """The user's own files."""

    kind: str = "text"
    path: str | None = None  # file, folder or glob
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        require(
            bool(self.path) or self.kind == "shakespeare",
            "data.path",
            self.path,
            'says which files to read, for example data.path="books/*.txt"',
        )
        require_encoding("data.encoding", self.encoding)


@dataclass(kw_only=True, slots=True)
class HarryPotterConfig(TextConfig):
    """The user's own copies of the novels, in data/harrypotter/."""

    kind: str = "harrypotter"
    path: str | None = II("paths.data") + "/harrypotter"


@dataclass(kw_only=True, slots=True)
class ShakespeareConfig(TextConfig):
    """Tiny Shakespeare: from its public address, or a local copy by data.path."""

    kind: str = "shakespeare"
    path: str | None = None


@dataclass(kw_only=True, slots=True)
class HuggingFaceConfig(DataConfig):
    """Any text data set that `datasets` can stream: from the hub, or local files by `data_files`."""

    kind: str = "huggingface"
    dataset: str | None = None  # name on the hub, or a local builder: text, json, parquet, csv
    subset: str | None = None  # the hub's "config"
    split: str = "train"
    text_column: str = "text"
    data_files: str | None = None  # local files for a local builder
    encoding: str = "utf-8"  # of local files
    revision: str | None = None

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        require(
            bool(self.dataset),
            "data.dataset",
            self.dataset,
            "names the data set, for example data.dataset=roneneldan/TinyStories",
        )
        require(
            self.val_bytes is not None,
            "data.val_bytes",
            self.val_bytes,
            "a stream has no end to take the rest from; give the number of bytes to score",
        )
        require_encoding("data.encoding", self.encoding)
        text = bool(self.data_files) and self.dataset != "parquet"
        require(self.encoding == "utf-8" or text, "data.encoding", self.encoding, "goes with local text, json or csv")


@dataclass(kw_only=True, slots=True)
class LabelledConfig(DataConfig):
    """Texts with a label each: rows of csv, tsv, json(l) or parquet files, or of a data set of the hub."""

    kind: str = "labelled"
    val_bytes: int | None = None  # unlike other corpora: all that validation has
    path: str | None = None  # file or glob
    encoding: str = "utf-8"  # of its files
    val_path: str | None = None  # null: of each label val_fraction of the texts
    dataset: str | None = None  # instead of path: a name on the hub
    subset: str | None = None  # the hub's "config"
    split: str = "train"
    val_split: str | None = None
    revision: str | None = None
    text_column: str = "text"
    label_column: str = "label"
    split_seed: int = 0  # another one takes other texts for validation; the run's seed doesn't, so that seeds compare

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        require(
            bool(self.path) != bool(self.dataset),
            "data.path",
            self.path,
            "says which file to read, for example data.path=reviews.csv"
            if not self.dataset
            else f"data.dataset={self.dataset} is another source; give one of the two",
        )
        for name, source in {"val_path": "path", "val_split": "dataset"}.items():
            given = getattr(self, name)
            require(not given or bool(getattr(self, source)), f"data.{name}", given, f"goes with data.{source}")
        require(
            self.text_column != self.label_column,
            "data.label_column",
            self.label_column,
            "is the column of the texts; name that of the labels",
        )
        require_encoding("data.encoding", self.encoding)
        require(self.encoding == "utf-8" or bool(self.path), "data.encoding", self.encoding, "goes with data.path")
        require(0 <= self.split_seed < 2**63, "data.split_seed", self.split_seed, "must be a whole number from 0")
