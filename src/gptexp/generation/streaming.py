"""Generated text in pieces that are safe to print (without torch)."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Sequence

# Terminal control sequences (ECMA-48, section 5): CSI with parameters; strings (OSC, DCS, SOS, PM, APC) up to their
# terminator on the same line; other escapes of two or more characters. Their lengths are bounded, so that a stream
# never delays text for long.
_CSI = r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}"
_STRING = r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x1b\x07\x9c\n]{0,256}"
_SHORT = r"\x1b[ -/]{0,8}"
_LONG = rf"{_CSI}[@-~]|{_STRING}(?:\x07|\x9c|\x1b\\)"
_ESCAPE = re.compile(rf"{_LONG}|{_SHORT}[0-~]")
# The same, and an incomplete escape at the end of the text: "ESC [" is a short escape or the start of a CSI.
_ESCAPE_OR_OPEN = re.compile(rf"{_LONG}|(?P<open>(?:{_CSI}|{_STRING}\x1b?|{_SHORT})\Z)|{_SHORT}[0-~]")
# C0 except newline and tab, DEL, C1, and the characters that reorder or isolate text (Unicode UAX 9).
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain_text(text: str) -> str:
    """Remove what controls a terminal: escapes, control characters except newline and tab, bidi overrides."""
    return _CONTROL.sub("", _ESCAPE.sub("", text))


class TextStream:
    """Converts tokens to printable text: never part of a character, never a terminal escape.

    The results of `push` and `finish`, joined, are `plain_text` of the bytes of all tokens decoded as UTF-8, with
    U+FFFD for invalid bytes.

    Args:
        decode_bytes: from tokens to bytes, by the tokenizer.
        plain: False to keep escapes and control characters.
    """

    def __init__(self, decode_bytes: Callable[[list[int]], bytes], *, plain: bool = True) -> None:
        self._decode_bytes, self._plain = decode_bytes, plain
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""  # the end of the text, if it may be the start of an escape

    def push(self, tokens: list[int]) -> str:
        """Return the text that these tokens complete; often "" within a character of several bytes."""
        return self._emit(self._utf8.decode(self._decode_bytes(tokens)), final=False)

    def finish(self) -> str:
        """Return the delayed text, and reset the stream."""
        text = self._emit(self._utf8.decode(b"", final=True), final=True)
        self._utf8.reset()
        return text

    def _emit(self, text: str, final: bool) -> str:
        if not self._plain:
            return text
        text = self._held + text
        cut = len(text) if final else _end_of_certain(text)
        self._held = text[cut:]
        return plain_text(text[:cut])


def _end_of_certain(text: str) -> int:
    """Position of an incomplete escape at the end; the end of the text if there is none."""
    starts = (match.start() for match in _ESCAPE_OR_OPEN.finditer(text) if match["open"] is not None)
    return next(starts, len(text))


class UntilStop:
    """Passes text on until the first of some strings, which is not passed on.

    Args:
        stops: each at least one character; without any, all text is passed on.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = stops
        self.found = False
        self._held = ""  # the end of the text, if it may be the start of a stop string

    def push(self, text: str) -> str:
        """Return the text that is certainly before a stop string; "" after one was found."""
        if self.found:
            return ""
        text = self._held + text
        ends = [text.index(stop) for stop in self.stops if stop in text]
        if ends:
            self.found, self._held = True, ""
            return text[: min(ends)]
        cut = len(text) - max((_overlap(text, stop) for stop in self.stops), default=0)
        self._held = text[cut:]
        return text[:cut]

    def finish(self) -> str:
        """Return the delayed text at the end of all text."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of the text may be the beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
