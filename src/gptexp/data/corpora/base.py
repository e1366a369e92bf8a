"""The interface of a corpus."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class CorpusBase(ABC):
    """Documents in a fixed order. The last characters of all of them are validation.

    cache: folder for files that the corpus downloads.
    """

    def __init__(self, config: Any, cache: Path) -> None:
        self.config, self.cache = config, Path(cache)

    @abstractmethod
    def check(self) -> None:
        """Check quickly that the text is available. ValueError: it is not; with the remedy."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a string that changes with the bytes of the source, their order, and how the corpus treats them."""

    @abstractmethod
    def pieces(self) -> Iterator[tuple[bool, str]]:
        """Yield (whether a document begins, text), from the beginning of the corpus each time.

        The text is never empty, has no byte order mark, and its lines end in LF. A piece has about a million characters
        at most. Pieces are cut where byte-pair tokens end anyway. ValueError: the source has changed since it was last
        read.
        """

    def pieces_from(self, place: list[int]) -> Iterator[tuple[list[int], bool, str]]:
        """Yield (place, whether a document begins, text) from a place on; [0, 0] is the beginning.

        A corpus that can find a place without reading what is before it overrides this.
        """
        for number, (starts, text) in enumerate(self.pieces()):
            if [number, 0] >= place:
                yield [number, 0], starts, text

    def require_unchanged(self) -> None:  # noqa: B027 (most corpora notice a change when they read)
        """ValueError: the source has changed since its fingerprint was computed."""


class StreamBase(CorpusBase):
    """A corpus without a known end. Each piece is a document; validation is chosen by the hash of the text."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return the position after the piece that was yielded last, as JSON data."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next `pieces()` resume from this position."""

    def section(self, number: int, count: int) -> StreamBase:
        """Return one of `count` streams that are this stream if they are joined.

        Raises:
            ValueError: the stream can't be divided so often.
        """
        raise ValueError(f"prepare.parts={count}: data={self.config.kind} can't be divided; use prepare.parts=1")

    def file_sizes(self) -> list[int]:
        """Return the bytes of each local file, to notice that another machine has other files."""
        return []
