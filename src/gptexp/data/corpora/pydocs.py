"""The Python language reference that CPython includes for help(): about half a megabyte of English."""

from __future__ import annotations

from collections.abc import Iterator

from gptexp.data.corpora._reading import as_document, clean, cut_pieces, hash_contents
from gptexp.data.corpora.base import CorpusBase


class PydocsCorpus(CorpusBase):
    """Each topic is a document, sorted by name."""

    def check(self) -> None:
        """ValueError: this Python does not include its documentation."""
        self._documents()

    def fingerprint(self) -> str:
        return hash_contents(([text.encode()] for text in self._documents()), "pydocs 1")

    def pieces(self) -> Iterator[tuple[bool, str]]:
        for document in self._documents():
            yield from as_document(cut_pieces([document]))

    def _documents(self) -> list[str]:
        try:
            from pydoc_data.topics import topics
        except ImportError:
            raise ValueError(
                "data=pydocs: this Python does not have the module pydoc_data; install the full standard library, "
                "or use another text: data=text data.path=…"
            ) from None
        return [clean(topics[name]) for name in sorted(topics)]
