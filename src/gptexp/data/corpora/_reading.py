"""From files to clean text: decoding as a stream, line ends, pieces, errors with their place."""

from __future__ import annotations

import codecs
import io
import re
import warnings
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import xxhash

from gptexp.data.corpora._encodings import HEAD, advice, doubtful, likely_encoding, require_no_nulls, require_text
from gptexp.tokenizers.long_runs import last_boundary

PIECE = 1_000_000  # characters
CHUNK = 1 << 20  # bytes read at a time
SAMPLE = 1 << 16  # bytes; an even number, so that UTF-16 is not cut


def hash_contents(contents: Iterable[Iterable[bytes]], *settings: str) -> str:
    """Return xxh3_128 of contents in their order, each given in chunks, and of the settings that treat them."""
    total = xxhash.xxh3_128(repr(settings).encode())
    for chunks in contents:
        one = xxhash.xxh3_128()
        for chunk in chunks:
            one.update(chunk)
        total.update(one.digest())
    return total.hexdigest()


class Contents:
    """Reads files and verifies that their bytes are the same each time.

    A corpus is read several times: for its fingerprint, to count it, to train a tokenizer, to tokenize it. If a file
    were replaced in between, the tokens of one text would be stored under the fingerprint of another.
    """

    def __init__(self) -> None:
        self._known: dict[Path, array[int]] = {}

    def chunks(self, path: Path) -> Iterator[bytes]:
        """Yield the file in chunks. ValueError: it has changed since it was first read completely."""
        known, found = self._known.get(path), array("Q")
        for chunk in _chunks(path):
            found.append(xxhash.xxh3_64_intdigest(chunk))
            if known is not None and known[len(found) - 1 : len(found)] != found[-1:]:
                raise changed(path)
            yield chunk
        if known is not None and len(known) != len(found):
            raise changed(path)
        self._known[path] = found


class Stamps:
    """Sizes and times of files that other libraries open, to detect a change."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._known = {path: _stamp(path) for path in files}

    def require_unchanged(self) -> None:
        """ValueError: a file has changed."""
        for path, stamp in self._known.items():
            if _stamp(path) != stamp:
                raise changed(path)


def _stamp(path: Path) -> tuple[int, ...]:
    # The time of the last inode change can't be set, so a file that was replaced and restored is detected too.
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def changed(path: Path) -> ValueError:
    """Return the error for a file that changed while it was in use."""
    return ValueError(f"{path}: has changed while it was being read; run the command again when it is complete")


def clean(text: str) -> str:
    """Return a complete text without its byte order mark, with lines that end in LF."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def read_text(
    path: Path, encoding: str, setting: str = "data.encoding", contents: Contents | None = None
) -> Iterator[str]:
    """Yield the clean text of a file in pieces.

    setting: the setting or option of the encoding. contents: of a file that is read several times.

    Raises:
        ValueError: the file, byte, line and likely encoding of bytes that can't be decoded.
    """
    return cut_pieces(_decode(path, (contents or Contents()).chunks(path), encoding, setting))


def as_document(pieces: Iterable[str]) -> Iterator[tuple[bool, str]]:
    """Yield (whether the document begins, piece) for the pieces of a document."""
    for i, piece in enumerate(pieces):
        yield i == 0, piece


def cut_pieces(chunks: Iterable[str], size: int = PIECE) -> Iterator[str]:
    """Regroup text into pieces of about `size` characters, none empty.

    Cuts are between a non-space and the white space after it, where every word of GPT-2's split ends, so the tokens are
    those of the uncut text. In 2·size characters without such a place, the cut is between two words, or where a word
    that is too long is cut anyway.
    """
    buffer = ""
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= size and (place := _last_cut(buffer, size) or _forced_cut(buffer, size)):
            yield buffer[:place]
            buffer = buffer[place:]
    if buffer:
        yield buffer


def _last_cut(text: str, size: int) -> int:
    """Return the last place to cut at or below `size`, else the first one above, else 0."""
    for place in range(min(size, len(text) - 1), 0, -1):
        if text[place] in " \t\n" and not text[place - 1].isspace():
            return place
    above = re.compile(r"\S(?=[ \t\n])").search(text, size)
    return above.end() if above else 0


def _forced_cut(text: str, size: int) -> int:
    return last_boundary(text) if len(text) >= 2 * size else 0


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _decode(path: Path, chunks: Iterator[bytes], encoding: str, setting: str) -> Iterator[str]:
    # The newline decoder keeps a CR at the end of a chunk until it knows whether an LF follows.
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(), translate=True)
    read, begun, head = 0, False, b""
    for chunk in chain(chunks, [b""]):
        if not read:
            head = chunk[:HEAD]
            require_text(path, head)
        read += len(chunk)
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeError as error:
            raise _wrong_encoding(path, encoding, _offset(error, read), setting) from None
        require_no_nulls(path, text, head, encoding, setting)
        if read == len(chunk):
            _doubt(path, chunk[:SAMPLE], encoding, setting)
        if text:
            yield text if begun else text.removeprefix("\ufeff")
            begun = True


def _doubt(path: Path, head: bytes, encoding: str, setting: str) -> None:
    """Warn of a file that can be decoded, but that another encoding turns into text."""
    if likely := doubtful(head, encoding):
        warnings.warn(
            f"{path}: read as {setting}={encoding} it does not look like text; it looks like {likely}: "
            f"set {setting}={likely} unless the text is right",
            stacklevel=1,
        )


def recognized(path: Path, contents: Contents, setting: str = "data.encoding") -> str:
    """Return the encoding of a file: utf-8 if all of it is valid, else the one in which it is plausible text.

    setting: the setting or option of the encoding.

    Raises:
        ValueError: the place of the first byte that is not UTF-8, if no encoding is certain.
    """
    decoder, read, head = codecs.getincrementaldecoder("utf-8")(), 0, b""
    try:
        for chunk in chain(contents.chunks(path), [b""]):
            head, read = head or chunk[:HEAD], read + len(chunk)
            decoder.decode(chunk, final=not chunk)
    except UnicodeDecodeError as error:
        offset = _offset(error, read)
        with path.open("rb") as file:
            likely = likely_encoding(head, _around(file, offset), "utf-8")
        if likely is None:
            raise _wrong_encoding(path, "utf-8", offset, setting) from None
        return likely
    return (likely_encoding(head, head, "utf-8") if b"\0" in head else None) or "utf-8"


def tell_recognized(encodings: dict[Path, str], setting: str = "data.encoding") -> None:
    """Warn of each encoding other than UTF-8 that was recognized, with the files."""
    for encoding in sorted(set(encodings.values()) - {"utf-8"}):
        files = [str(file) for file, found in encodings.items() if found == encoding]
        names = ", ".join(files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")
        warnings.warn(
            f"{setting}=auto: read as {encoding}: {names}; if the text is wrong, set {setting}=", stacklevel=1
        )


def _offset(error: UnicodeError, read: int) -> int:
    """Position of the error in the file; the error's object is the last chunk after bytes kept from before."""
    if isinstance(error, UnicodeDecodeError):
        return read - len(error.object) + error.start
    return 0  # UTF-16 without a byte order mark


def _wrong_encoding(path: Path, encoding: str, offset: int, setting: str) -> ValueError:
    with path.open("rb") as file:
        line = 1 + sum(chunk.count(b"\n") for chunk in _limited(file, offset))
        sample = _around(file, offset)
        file.seek(0)
        hint = advice(file.read(HEAD), sample, encoding, setting)
    return ValueError(f"{path}: byte {offset} (line {line}) can't be read as {setting}={encoding}; {hint}")


def _around(file: io.BufferedReader, offset: int) -> bytes:
    """Return the bytes around an error, from the start of a line, where a character starts in every encoding."""
    start = max(0, offset - CHUNK // 16)
    file.seek(start)
    sample = file.read(CHUNK // 8)
    return sample if start == 0 else sample[sample.find(b"\n") + 1 :]


def _limited(file: io.BufferedReader, size: int) -> Iterator[bytes]:
    while size > 0 and (chunk := file.read(min(size, CHUNK))):
        size -= len(chunk)
        yield chunk
