"""Long runs of letters, of digits, of other signs, or of white space: cut, so that no word is longer than LONGEST.

Byte-pair encoding works word by word, and its time grows faster than a word's length: DNA, a text without spaces or a
million spaces would keep the trainer busy for minutes and overflow the stack of tiktoken's regular expressions. A text
without longer runs stays as it is, so its tokens are those of GPT-2.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

LONGEST = 1000  # characters; more than the words and rulers of any ordinary text

_CLASSES = (r"\p{L}", r"\p{N}", r"[^\s\p{L}\p{N}]", r"\s")  # of which GPT-2's split makes its words


def has_long_runs(text: str) -> bool:
    """Whether `cut_runs` cuts this text."""
    return next(_cuts(text), None) is not None


def cut_runs(text: str) -> list[str]:
    """The text in parts, cut every LONGEST characters from the beginning of a run that is longer than that."""
    places = [0, *_cuts(text), len(text)]
    return [text[start:stop] for start, stop in pairwise(places)]


def last_boundary(text: str) -> int:
    """The last place in a text without breaks where a word ends, whatever follows the text; 0 where there is none."""
    # A letter or digit ends a word before anything but its like. (Not so an apostrophe: it may begin a contraction.)
    # Signs that end or join the words of special tokens, as in <|endoftext|>, are left out, so that those stay whole.
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
    """A quick look: of a long run, LONGEST // 2 characters follow on some multiple of that number."""
    step = LONGEST // 2
    probe = _pattern("|".join(f"{kind}{{{step}}}" for kind in _CLASSES))
    return any(probe.match(text, place) for place in range(0, len(text) - LONGEST, step))


@lru_cache(maxsize=8)
def _pattern(pattern: str) -> Any:
    import regex  # Python's own knows no \p{L}

    return regex.compile(pattern)
