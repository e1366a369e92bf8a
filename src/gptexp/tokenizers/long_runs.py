"""Long runs of letters, of digits, of other signs or of white space are cut, so that no word is longer than LONGEST.

Byte-pair encoding works word by word, and its time grows faster than the length of a word. A text without spaces, such
as DNA, or a million spaces would keep the trainer busy for minutes and overflow the stack of tiktoken's regular
expressions. The tokenizers library encodes such a text without these problems, but the cuts also make the tokens
independent of the pieces in which a corpus is read. A text without longer runs is not changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

LONGEST = 1000  # characters; more than the words and rulers of any ordinary text

_CLASSES = (r"\p{L}", r"\p{N}", r"[^\s\p{L}\p{N}]", r"\s")  # each word of GPT-2's split consists of one class


def has_long_runs(text: str) -> bool:
    """Whether `cut_runs` cuts this text."""
    return next(_cuts(text), None) is not None


def cut_runs(text: str) -> list[str]:
    """The text in parts; a run of more than LONGEST characters is cut every LONGEST characters from its beginning."""
    places = [0, *_cuts(text), len(text)]
    return [text[start:stop] for start, stop in pairwise(places)]


def last_boundary(text: str) -> int:
    """The last place in a text without breaks where a word ends, whatever follows the text; 0: there is none."""
    # A word ends between a letter or digit and any other class. An apostrophe may begin a contraction, so no word is
    # sure to end after it. Signs that end or join the words of special tokens, as in <|endoftext|>, are excluded, so
    # that special tokens stay whole.
    changes = _pattern(r"(?<=\p{L})[^\s\p{L}|>\]_]|(?<=\p{N})[^\s\p{N}|>\]_]").finditer(text)
    last = max((change.start() for change in changes), default=0)
    return max(last, *_cuts(text), 0)


def _cuts(text: str) -> Iterator[int]:
    if not _may_have_long_runs(text):
        return
    longer = "|".join(f"(?<!{kind}){kind}{{{LONGEST + 1},}}+" for kind in _CLASSES)
    for run in _pattern(longer).finditer(text):
        yield from range(run.start() + LONGEST, run.end(), LONGEST)


def _may_have_long_runs(text: str) -> bool:
    """A fast test: a long run contains LONGEST // 2 characters that begin at a multiple of that number."""
    step = LONGEST // 2
    probe = _pattern("|".join(f"{kind}{{{step}}}" for kind in _CLASSES))
    return any(probe.match(text, place) for place in range(0, len(text) - LONGEST, step))


@lru_cache(maxsize=8)
def _pattern(pattern: str) -> Any:
    import regex  # the module re has no \p{L}

    return regex.compile(pattern)
