"""Standard output and error that may get lost while a run goes on: `… | head`, a full disk, a closed terminal."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress


class LastingStream(io.TextIOWrapper):
    """Text of which the rest goes nowhere once it can't be written any more."""

    replaced: io.TextIOWrapper

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        with suppress(OSError):
            super().flush()


def outlive_readers() -> None:
    """Let this process go on when nobody takes its standard output or error any more."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if isinstance(stream, LastingStream) or not isinstance(stream, io.TextIOWrapper):
            continue
        with suppress(OSError):  # no file at all, as in a notebook
            if stream.fileno() == descriptor:
                stream.flush()
                lasting = LastingStream(
                    stream.buffer,
                    stream.encoding,
                    stream.errors,
                    line_buffering=stream.line_buffering,
                    write_through=stream.write_through,
                )
                lasting.replaced = stream  # which would close the buffer when it is let go
                setattr(sys, name, lasting)
