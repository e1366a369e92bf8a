"""Settings of the corpora and of the batches taken from them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar

from omegaconf import II

from gptexp.config.rules import nearest_multiples, require, require_at_least, require_encoding

DEFAULT_WINDOWS = 12  # windows per optimizer step if no batch size is given
SMALLEST_SHARE = 1e-5  # of a part of a mixture
NESTED = "a mixture can't be a part of a mixture; name its parts"
WEIGHTED = "weighted"  # the end of the name of a metric that is averaged over the parts by their weights
OF_ALL_PARTS = ("global_batch_size", "global_batch_tokens", "micro_batch_size", "num_workers")  # not of one part

Exhausted = Enum("Exhausted", ["repeat", "stop"])

AUTO = "auto"  # data.encoding: recognized for each file
FILE_FORMATS = ("text", "json", "csv", "parquet")  # values of data.dataset that read local files


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Settings that every corpus has.

    implementation: the class, as module:name, which is created with (config, cache).
    """

    implementation: ClassVar[str] = ""
    kind: str = ""
    """Name of the corpus's kind. The preset sets it."""
    val_fraction: float = 0.1
    """Fraction of the characters, taken from the end, that is used for validation; above 0 and below 1."""
    val_bytes: int | None = 65_536
    """Most bytes of the validation part that are scored. null: all of it."""
    max_tokens: int | None = None
    """Most training tokens that are used. null: all of them."""
    global_batch_size: int | None = None
    """Windows per optimizer step over all devices. null: 12, or as many as global_batch_tokens gives."""
    global_batch_tokens: int | None = None
    """Tokens per optimizer step over all devices, a multiple of model.block_size; instead of global_batch_size."""
    micro_batch_size: int | None = None
    """Windows per forward pass on one device; the rest of a step's windows is accumulated. null: as many as fit."""
    num_workers: int = 0
    """Number of processes that load data, for each training process. 0: the training process loads it."""

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
            f"conflicts with data.global_batch_size={self.global_batch_size}; give one of the two",
        )

    def require_whole_windows(self, block_size: int) -> None:
        """Refuse a batch in tokens that is no whole number of windows."""
        if self.global_batch_tokens is not None:
            require(
                self.global_batch_tokens % block_size == 0,
                "data.global_batch_tokens",
                self.global_batch_tokens,
                f"must be a multiple of model.block_size={block_size}; "
                f"nearest: {nearest_multiples(self.global_batch_tokens, block_size)}",
            )

    def windows_per_step(self, block_size: int) -> int:
        """Return the number of windows of `block_size` tokens per optimizer step over all devices."""
        if self.global_batch_tokens is not None:
            return self.global_batch_tokens // block_size
        return DEFAULT_WINDOWS if self.global_batch_size is None else self.global_batch_size

    @property
    def train_fraction(self) -> Decimal:
        """1 - val_fraction as a decimal: 0.9 of a length is exact, and may not be with a float."""
        return 1 - Decimal(str(self.val_fraction))


@dataclass(kw_only=True, slots=True)
class PydocsConfig(DataConfig):
    """The Python language reference that is part of every CPython installation."""

    implementation: ClassVar[str] = "gptexp.data.corpora.pydocs:PydocsCorpus"
    kind: str = "pydocs"


@dataclass(kw_only=True, slots=True)
class PythonStdlibConfig(DataConfig):
    """The source code of Python's standard library without its tests."""

    implementation: ClassVar[str] = "gptexp.data.corpora.python_stdlib:PythonStdlibCorpus"
    kind: str = "python_stdlib"


@dataclass(kw_only=True, slots=True)
class TextConfig(DataConfig):
    """Text files of the user."""

    implementation: ClassVar[str] = "gptexp.data.corpora.text:TextCorpus"
    kind: str = "text"
    path: str | None = None
    """File, folder (all its *.txt files) or glob pattern of the text to read. Each file is read once."""
    encoding: str = "utf-8"
    """Text encoding of the files; auto recognizes the one of each file, and a notice names it."""

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        require(
            bool(self.path) or self.kind == "shakespeare",
            "data.path",
            self.path,
            'must name the files to read, for example data.path="books/*.txt"',
        )
        if self.encoding != AUTO:
            require_encoding("data.encoding", self.encoding)


@dataclass(kw_only=True, slots=True)
class HarryPotterConfig(TextConfig):
    """The user's copies of the Harry Potter novels in data/harrypotter/."""

    implementation: ClassVar[str] = "gptexp.data.corpora.harrypotter:HarryPotterCorpus"
    kind: str = "harrypotter"
    path: str | None = II("paths.data") + "/harrypotter"


@dataclass(kw_only=True, slots=True)
class ShakespeareConfig(TextConfig):
    """Tiny Shakespeare, downloaded or read from a local copy."""

    implementation: ClassVar[str] = "gptexp.data.corpora.shakespeare:ShakespeareCorpus"
    kind: str = "shakespeare"
    path: str | None = None
    """Local copy of the text. null: it is downloaded."""


@dataclass(kw_only=True, slots=True)
class HuggingFaceConfig(DataConfig):
    """Any text data set that the library `datasets` can stream, from the Hugging Face Hub or from local files."""

    implementation: ClassVar[str] = "gptexp.data.corpora.huggingface:HuggingFaceCorpus"
    kind: str = "huggingface"
    dataset: str | None = None
    """Name of the data set on the Hub, or the format of local files: text, json, parquet or csv."""
    subset: str | None = None
    """Configuration of the data set on the Hub. null: the only one."""
    split: str = "train"
    """Split of the data set that is read."""
    text_column: str = "text"
    """Column that holds the text."""
    data_files: str | None = None
    """Local files to read where dataset is a format. null: the data set comes from the Hub."""
    encoding: str = "utf-8"
    """Text encoding of local text, json or csv files."""
    revision: str | None = None
    """Commit, tag or branch of the data set on the Hub. null: the default branch."""

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        require(
            bool(self.dataset),
            "data.dataset",
            self.dataset,
            "must name the data set, for example data.dataset=roneneldan/TinyStories",
        )
        require(
            self.val_bytes is not None,
            "data.val_bytes",
            self.val_bytes,
            "must be a number, because the length of a stream is unknown; give the number of bytes to score",
        )
        require_encoding("data.encoding", self.encoding)
        text = bool(self.data_files) and self.dataset != "parquet"
        require(
            self.encoding == "utf-8" or text,
            "data.encoding",
            self.encoding,
            "applies only to local text, json or csv files",
        )


@dataclass(kw_only=True, slots=True)
class LabelledConfig(DataConfig):
    """Texts with one label each: rows of csv, tsv, json(l) or parquet files, or of a data set on the Hub."""

    implementation: ClassVar[str] = "gptexp.data.corpora.labelled:LabelledCorpus"
    kind: str = "labelled"
    val_fraction: float = 0.1
    """Fraction of the texts of each label that is used for validation; above 0 and below 1."""
    val_bytes: int | None = None
    path: str | None = None
    """File or glob pattern of the training texts; instead of dataset."""
    encoding: str = "utf-8"
    """Text encoding of the files."""
    val_path: str | None = None
    """File or glob pattern of the validation texts. null: val_fraction of the training texts of each label."""
    dataset: str | None = None
    """Name of a data set on the Hugging Face Hub; instead of path."""
    subset: str | None = None
    """Configuration of the data set on the Hub. null: the only one."""
    split: str = "train"
    """Split of the data set that is used for training."""
    val_split: str | None = None
    """Split of the data set that is used for validation. null: val_fraction of split."""
    revision: str | None = None
    """Commit, tag or branch of the data set on the Hub. null: the default branch."""
    text_column: str = "text"
    """Column that holds the text."""
    label_column: str = "label"
    """Column that holds the label."""
    split_seed: int = 0
    """Seed of the choice of validation texts. It is independent of seed, so that runs with several seeds compare."""

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        require(
            bool(self.path) != bool(self.dataset),
            "data.path",
            self.path,
            "must name the file to read, for example data.path=reviews.csv"
            if not self.dataset
            else f"conflicts with data.dataset={self.dataset}; give one of the two",
        )
        for name, source in {"val_path": "path", "val_split": "dataset"}.items():
            given = getattr(self, name)
            require(not given or bool(getattr(self, source)), f"data.{name}", given, f"requires data.{source}")
        require(
            self.text_column != self.label_column,
            "data.label_column",
            self.label_column,
            "is also data.text_column; give the column of the labels",
        )
        require_encoding("data.encoding", self.encoding)
        require(self.encoding == "utf-8" or bool(self.path), "data.encoding", self.encoding, "requires data.path")
        require(0 <= self.split_seed < 2**63, "data.split_seed", self.split_seed, "must be a whole number from 0")


def require_part_name(name: str) -> None:
    """Refuse the name of a part of a mixture that can't be part of a metric's name."""
    holds = re.fullmatch(r"[A-Za-z_]\w{0,39}", name, re.ASCII) is not None and name != WEIGHTED
    remedy = f"must be letters, digits and underscores, at most 40, and not {WEIGHTED}"
    require(holds, "data.parts", name, remedy)


@dataclass(kw_only=True, slots=True)
class MixtureConfig(DataConfig):
    """Several corpora, each with a weight. Windows of all of them are in every step, in proportion to the weights."""

    implementation: ClassVar[str] = "gptexp.data.corpora.mixture:MixtureCorpus"
    kind: str = "mixture"
    parts: dict[str, Any] = field(default_factory=dict)
    """The corpora by name: data.parts.NAME=OPTION of data, data.parts.NAME.weight=2 and the settings of that kind."""
    exhausted: Exhausted = Exhausted.repeat
    """What follows when all windows of a part have been used. repeat: they are used again; stop: the run ends."""

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        example = "must name at least two corpora, for example data.parts.books=shakespeare data.parts.code=pydocs"
        require(len(self.parts) > 1, "data.parts", ",".join(self.parts), example)
        self.parts = dict(sorted(self.parts.items()))
        for name, part in self.parts.items():
            require_part_name(name)
            require(isinstance(part, dict), f"data.parts.{name}", part, "must be the settings of a corpus")
            weight, kind = part.get("weight"), part.get("kind")
            require(kind != self.kind, f"data.parts.{name}", kind, NESTED)
            holds = type(weight) in (int, float) and math.isfinite(weight) and weight > 0
            require(holds, f"data.parts.{name}.weight", weight, "must be a number above 0")
        least = min(self.parts, key=lambda name: self.weights[name])
        share = self.weights[least] / math.fsum(self.weights.values())
        remedy = f"gives a share of {share:.1e}, and no share may be below {SMALLEST_SHARE:g}; leave the part out"
        require(share >= SMALLEST_SHARE, f"data.parts.{least}.weight", self.weights[least], remedy)

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each part, in the order of the names."""
        return {name: float(part["weight"]) for name, part in self.parts.items()}
