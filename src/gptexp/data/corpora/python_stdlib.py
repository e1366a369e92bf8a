"""The sources of Python's standard library without its tests: about 12 MB of code."""

from __future__ import annotations

import io
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptexp.data.corpora._reading import Contents, as_document, clean, cut_pieces, hash_contents
from gptexp.data.corpora.base import CorpusBase

SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}


class PythonStdlibCorpus(CorpusBase):
    """Each module is a document, sorted by path."""

    def __init__(self, config: Any, cache: Path) -> None:
        super().__init__(config, cache)
        self._contents = Contents()

    def check(self) -> None:
        """ValueError: the standard library is in an archive, or only compiled."""
        if not any(True for _ in self._root().glob("*.py")):
            raise ValueError(
                f"data=python_stdlib: no Python sources in {self._root()}; data=pydocs works without files, "
                "or use another text: data=text data.path=…"
            )

    def fingerprint(self) -> str:
        return hash_contents(map(self._contents.chunks, self._files()), "python_stdlib 1")

    def pieces(self) -> Iterator[tuple[bool, str]]:
        for file in self._files():
            yield from as_document(cut_pieces([_source(b"".join(self._contents.chunks(file)))]))

    def _files(self) -> list[Path]:
        root = self._root()
        files = (file.relative_to(root) for file in root.rglob("*.py") if file.is_file())
        return [root / file for file in sorted(files, key=Path.as_posix) if not SKIPPED.intersection(file.parts)]

    def _root(self) -> Path:
        return Path(sysconfig.get_path("stdlib"))


def _source(data: bytes) -> str:
    """Return the text of a module in its declared encoding (PEP 263); empty if it can't be decoded."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return clean(data.decode(encoding))
    except (SyntaxError, UnicodeDecodeError):
        return ""
