"""Several corpora, one after the other: what is read to check and to identify a mixture."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptexp.config.conversion import corpora_of, errors_of_part
from gptexp.config.kinds import implementation
from gptexp.data.corpora.base import CorpusBase


class MixtureCorpus(CorpusBase):
    """The corpora of all parts, in the order of their names."""

    def __init__(self, config: Any, cache: Path) -> None:
        super().__init__(config, cache)
        self.configs = corpora_of(config)
        self.parts: dict[str, CorpusBase] = {
            name: implementation("data", part.kind)(part, cache) for name, part in self.configs.items()
        }

    def check(self) -> None:
        """ValueError: the text of a part is not available; with its name."""
        for name, corpus in self.parts.items():
            with errors_of_part(name):
                corpus.check()

    def fingerprint(self) -> str:
        found = [f"{name} {corpus.fingerprint()}" for name, corpus in self.parts.items()]
        return hashlib.sha256("\n".join(["mixture 1", *found]).encode()).hexdigest()

    def pieces(self) -> Iterator[tuple[bool, str]]:
        for corpus in self.parts.values():
            yield from corpus.pieces()

    def require_unchanged(self) -> None:
        for name, corpus in self.parts.items():
            with errors_of_part(name):
                corpus.require_unchanged()
