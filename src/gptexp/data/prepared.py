"""What every prepared data set has, whatever objective learns from it."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, Self

from gptexp.data.corpora.labelled import Label
from gptexp.tokenizers import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What a checkpoint records about its data; a checkpoint in Hugging Face's format records nothing.

    fingerprint: of the tokens. text_sha256: of the validation text.
    """

    fingerprint: str | None = None
    text_sha256: str | None = None

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Read the facts from the `data` of a checkpoint, which may be untrusted. ValueError: they are invalid."""
        return cls(**{field.name: plain[field.name] for field in fields(cls) if field.name in plain})

    def as_plain(self) -> dict[str, Any]:
        """Return the facts as a checkpoint stores them."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFacts(DataFacts):
    """labels: all labels, sorted; a class is a position in this list. counts: training texts of each label.

    Raises:
        ValueError: not a list of at least two different labels, or not a count for each.
    """

    labels: list[Label] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        labels, counts = self.labels, self.counts
        if not isinstance(labels, list) or not isinstance(counts, list):
            raise ValueError("a classifier must have a list of labels and a list of their counts")
        if len(labels) < 2 or not all(type(label) in (str, int) for label in labels):
            raise ValueError("the labels of a classifier must be at least two texts or whole numbers")
        if not len(counts) == len(labels) == len(set(labels)):
            raise ValueError("the labels of a classifier must differ, and each must have a count")
        if not all(type(count) is int and 0 < count < 2**63 for count in counts):
            raise ValueError("the counts of a classifier's labels must be whole numbers from 1")


class PreparedData(Protocol):
    """Training and validation data of one corpus by one tokenizer, in a folder of the cache.

    train, val: tokens of a text, or labelled texts. fingerprint: of the source, the settings of the split and the
    tokenizer, so that it does not depend on whether the tokenizer was trained here or loaded. text_sha256: of what
    validation scores. val_text_bytes: UTF-8 bytes of its texts. bytes_per_token: of the training text.
    """

    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def train(self) -> Sized: ...
    @property
    def val(self) -> Sized: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def text_sha256(self) -> str: ...
    @property
    def bytes_per_token(self) -> float: ...
    @property
    def val_text_bytes(self) -> int: ...
    @property
    def folder(self) -> Path: ...
    @property
    def facts(self) -> DataFacts: ...
