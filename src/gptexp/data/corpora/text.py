"""Text files of the user: `data.path` is a file, a folder or a glob."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptexp.config.data import AUTO
from gptexp.data.corpora._files import find_files
from gptexp.data.corpora._reading import Contents, as_document, hash_contents, read_text, recognized, tell_recognized
from gptexp.data.corpora.base import CorpusBase
from gptexp.util.files import user_path

_EMPTY = {b"", codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}


class TextCorpus(CorpusBase):
    """Each file is a document, in the natural order of their names."""

    def __init__(self, config: Any, cache: Path) -> None:
        super().__init__(config, cache)
        self._contents = Contents()
        self._found: list[Path] = []
        self._recognized: dict[Path, str] = {}

    def check(self) -> None:
        """ValueError: no file, or all files are empty."""
        files = self.files()
        if not files:
            raise ValueError(self._nothing_found())
        if all(file.stat().st_size <= 3 and file.read_bytes() in _EMPTY for file in files):
            names = ", ".join(str(file) for file in files[:5]) + (" …" if len(files) > 5 else "")
            raise ValueError(f"data.path={self.config.path}: there is no text in {names}")

    def files(self) -> list[Path]:
        """Return the files, searched once: a folder may have many, and files that are added later are not part."""
        if not self._found:
            self._found = find_files(self.config.path)
        return self._found

    def fingerprint(self) -> str:
        chunks = map(self._contents.chunks, self.files())
        return hash_contents(
            chunks, "text 1", *dict.fromkeys(codecs.lookup(e).name for e in self._encodings().values())
        )

    def pieces(self) -> Iterator[tuple[bool, str]]:
        return ((starts, text) for _, starts, text in self.pieces_from([0, 0]))

    def pieces_from(self, place: list[int]) -> Iterator[tuple[list[int], bool, str]]:
        """As for every corpus; a place is a file and a piece of it, and no file before it is read."""
        for number, (file, encoding) in enumerate(self._encodings().items()):
            pieces = as_document(read_text(file, encoding, contents=self._contents)) if number >= place[0] else ()
            for i, (starts, text) in enumerate(pieces):
                if [number, i] >= place:
                    yield [number, i], starts, text

    def _encodings(self) -> dict[Path, str]:
        """The encoding of each file: the setting, or what each file is recognized as."""
        if self.config.encoding != AUTO:
            return dict.fromkeys(self.files(), self.config.encoding)
        if not self._recognized:
            self._recognized = {file: recognized(file, self._contents) for file in self.files()}
            tell_recognized(self._recognized)
        return self._recognized

    def _nothing_found(self) -> str:
        looked = user_path(self.config.path, "data.path")
        folder = (looked if looked.is_dir() else looked.parent).absolute()
        return (
            f"data.path={self.config.path}: no text file found (looked in {folder}); give a file, a folder with "
            "*.txt or a glob. data=pydocs and data=python_stdlib work without files"
        )
