"""Where text comes from. One kind a file: a class of `CorpusBase`, named `Corpus`.

A new corpus is a file here and a preset in conf/data/; names that begin with an underscore are no corpora.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptexp.config.data import DataConfig


class CorpusBase(ABC):
    """Documents in a fixed order. Validation gets the last characters of them all (law 3)."""

    def __init__(self, config: Any, cache: Path) -> None:
        self.config, self.cache = config, Path(cache)

    @abstractmethod
    def check(self) -> None:
        """Quick look whether the text is there. ValueError with the remedy when it isn't."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes with the source's bytes, their order, and what the corpus makes of them."""

    @abstractmethod
    def pieces(self) -> Iterator[tuple[bool, str]]:
        """(begins a document?, text), never empty, without BOM, lines ending in LF; from the beginning each time.

        Pieces have about a million characters at most and are cut where byte-pair tokens end anyway. ValueError: the
        source isn't what it was when it was read before.
        """

    def require_unchanged(self) -> None:  # noqa: B027 (most corpora notice it as they read)
        """ValueError: the source isn't what the fingerprint was made of."""


class StreamBase(CorpusBase):
    """A corpus without a known end: each piece is a whole document, validation is chosen by the hash of its text."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Where the iteration stands, as JSON data: after the piece last yielded."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next `pieces()` go on from there."""


def kinds() -> list[str]:
    """Names of the corpora: the files of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def open_corpus(config: DataConfig, cache: Path) -> CorpusBase:
    """The corpus that a config describes; nothing is read yet. cache: folder for what it may download."""
    if config.kind not in kinds():
        raise ValueError(f"data.kind={config.kind}: choose one of {', '.join(kinds())}")
    return importlib.import_module(f"{__name__}.{config.kind}").Corpus(config, cache)
