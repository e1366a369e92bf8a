"""Text that a model wrote, piece by piece and safe to print (no torch)."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Sequence

# Terminal control sequences (ECMA-48, section 5): CSI with parameters; strings (OSC, DCS, SOS, PM, APC) up
# to their terminator on the same line; other escapes of two or more characters. The lengths are bounded, so
# that a stream never holds text back for long.
_CSI = r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}"
_STRING = r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x1b\x07\x9c\n]{0,256}"
_SHORT = r"\x1b[ -/]{0,8}"
_LONG = rf"{_CSI}[@-~]|{_STRING}(?:\x07|\x9c|\x1b\\)"
_ESCAPE = re.compile(rf"{_LONG}|{_SHORT}[0-~]")
# The same, but where the text ends too early to tell: "ESC [" is short by itself and the start of a CSI.
_ESCAPE_OR_OPEN = re.compile(rf"{_LONG}|(?P<open>(?:{_CSI}|{_STRING}\x1b?|{_SHORT})\Z)|{_SHORT}[0-~]")
# C0 but newline and tab, DEL, C1, and the characters that reorder or isolate text (Unicode UAX 9).
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain_text(text: str) -> str:
    """Text without what could drive a terminal: escapes, control characters but newline and tab, bidi overrides."""
    return _CONTROL.sub("", _ESCAPE.sub("", text))


class TextStream:
    """Token by token to printable text: never half a character, never a terminal escape.

    What `push` and `finish` give, joined, is `plain_text` of all tokens' bytes decoded as UTF-8, with
    U+FFFD for bytes that are no UTF-8.

    Args:
        decode_bytes: the tokenizer's tokens -> bytes.
    """

    def __init__(self, decode_bytes: Callable[[list[int]], bytes]) -> None:
        self._decode_bytes = decode_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""  # the end of the text, while it may be the start of an escape

    def push(self, tokens: list[int]) -> str:
        """The text that these tokens complete; often "" within a character of several bytes."""
        return self._emit(self._utf8.decode(self._decode_bytes(tokens)), final=False)

    def finish(self) -> str:
        """What was held back; the stream is as new afterwards."""
        text = self._emit(self._utf8.decode(b"", final=True), final=True)
        self._utf8.reset()
        return text

    def _emit(self, text: str, final: bool) -> str:
        text = self._held + text
        cut = len(text) if final else _end_of_certain(text)
        self._held = text[cut:]
        return plain_text(text[:cut])


def _end_of_certain(text: str) -> int:
    """Where an escape begins that what follows may still complete; the text's end if there is none."""
    starts = (match.start() for match in _ESCAPE_OR_OPEN.finditer(text) if match["open"] is not None)
    return next(starts, len(text))


class UntilStop:
    """Text up to the first of some strings, which isn't given itself.

    Args:
        stops: each at least one character; none of them: the text goes through as it comes.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = stops
        self.found = False
        self._held = ""  # the end of the text, while it may be the start of a stop string

    def push(self, text: str) -> str:
        """What is certain to stand before a stop string; "" after one was found."""
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
        """What was held back, when no more text comes."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """How many characters at the text's end may be the beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
