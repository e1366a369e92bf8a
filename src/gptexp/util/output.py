"""Output streams that survive a closed pipe, a full disk or a closed terminal, so that a run continues."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress


class LastingStream(io.TextIOWrapper):
    """A text stream that discards its output after the first failed write."""

    replaced: io.TextIOWrapper

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._discard()

    def _discard(self) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        with suppress(OSError):
            super().flush()


def outlive_readers() -> None:
    """Let this process continue after its standard output or error has been closed."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if isinstance(stream, LastingStream) or not isinstance(stream, io.TextIOWrapper):
            continue
        with suppress(OSError):  # not a file, as in a notebook
            if stream.fileno() == descriptor:
                stream.flush()
                lasting = LastingStream(
                    stream.buffer,
                    stream.encoding,
                    stream.errors,
                    line_buffering=stream.line_buffering,
                    write_through=stream.write_through,
                )
                lasting.replaced = stream  # keeps it alive: its destructor would close the buffer
                setattr(sys, name, lasting)
