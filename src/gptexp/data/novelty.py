"""How much of some texts is copied from a corpus: longest common spans, new n-grams, invented words.

The texts are indexed, which are short, and the corpus is read once in chunks, so memory does not depend on its size.
"""

from __future__ import annotations

import codecs
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
import regex

from gptexp.data.ngrams import Ngrams
from gptexp.tokenizers import Tokenizer

LENGTHS = range(3, 14)  # of n-grams, in words or characters
LONGEST = LENGTHS[-1]
BREAK = "\ud800"  # where a document ends; a lone surrogate is in no decoded text
CHUNK = 2**20  # characters of the corpus that are searched at once

# A word is a character of a script without spaces, or a run of letters, marks, digits and _ with inner apostrophes, or
# any other visible character: McCoy et al. (arXiv 2111.09509) count punctuation as words, too.
_ALONE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORD = regex.compile(rf"(?V1)[{_ALONE}]|[[\w\p{{M}}]--[{_ALONE}]]+(?:['’][[\w\p{{M}}]--[{_ALONE}]]+)*|\S")
_LETTER = regex.compile(r"\p{L}")


@dataclass(frozen=True, slots=True)
class Span:
    """A text that is in the corpus, too. offset: characters of the corpus before it, whose documents are joined."""

    text: str
    offset: int


@dataclass(frozen=True, slots=True)
class Novelty:
    """What of a text is new. span: the longest span that is in the corpus; None if no character is.

    values: longest_span and longest_span_words, its length; new_ngrams_3 and so on, the share of n-grams of words that
    are not in the corpus; new_characters_3 and so on, the same of characters; invented_words, the share of words with a
    letter that are not in the corpus, in upper or lower case. None: the text has no such n-grams or words.
    """

    text: str
    span: Span | None
    values: dict[str, float | None]


def measure(texts: Sequence[str], corpus: Iterable[str]) -> list[Novelty]:
    """Compare each text with a corpus. Both have BREAK where a document ends; pieces of the corpus are joined."""
    characters, words = _Characters(texts), _Words(texts)
    for offset, before, new in _chunks(corpus, max(map(len, texts), default=0)):
        characters.read(offset, before + new)
        words.read(new)
    words.look(words.symbols(WORD.findall(words.held)))
    found = []
    for i, (text, span) in enumerate(zip(texts, characters.spans, strict=True)):
        copied = span.text if span else ""
        lengths = {"longest_span": len(copied), "longest_span_words": len(WORD.findall(copied))}
        shares = {**words.new(i, "new_ngrams"), **characters.new(i, "new_characters")}
        found.append(
            Novelty(text.replace(BREAK, "\n"), span, {**lengths, **shares, "invented_words": words.invented(i)})
        )
    return found


def decoded(tokenizer: Tokenizer, pieces: Iterable[np.ndarray]) -> Iterator[str]:
    """Yield the text of tokens with BREAK for each <|endoftext|>, without an incomplete character at the end."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    for tokens in pieces:
        ends = np.flatnonzero(tokens == (-1 if tokenizer.eot is None else tokenizer.eot))
        for i, part in enumerate(np.split(tokens, ends)):
            yield (decode(b"", True) + BREAK if i else "") + decode(tokenizer.decode_bytes(part))


def text_of(tokenizer: Tokenizer, tokens: np.ndarray) -> str:
    """Return the text of a part of a text as `decoded`, without an incomplete character at its start."""
    cut = re.match(rb"[\x80-\xbf]{0,3}", tokenizer.decode_bytes(tokens[:3]))
    return "".join(decoded(tokenizer, [tokens]))[cut.end() if cut else 0 :]


def _chunks(pieces: Iterable[str], overlap: int) -> Iterator[tuple[int, str, str]]:
    """Yield (characters before the chunk, its first `overlap` characters again, its new ones)."""
    size, offset, before, held, length = max(CHUNK, 2 * overlap), 0, "", list[str](), 0
    for piece in chain(pieces, [None]):
        held.append(piece or "")
        length += len(held[-1])
        if length >= size or piece is None:
            whole = before + "".join(held)
            yield offset, before, whole[len(before) :]
            before, held, length = whole[max(0, len(whole) - overlap) :], [], 0
            offset += len(whole) - whole.count(BREAK) - len(before) + before.count(BREAK)


class _Sequence:
    """Texts as one sequence of symbols, and which of its n-grams were in the corpus until now."""

    def __init__(self, texts: Sequence[np.ndarray]) -> None:
        ends = np.cumsum([len(text) + 1 for text in texts])
        self.slices = [slice(end - len(text) - 1, end) for end, text in zip(ends, texts, strict=True)]
        joined = np.concatenate([np.zeros(0, dtype=np.int64), *(np.append(text, 0) for text in texts)])
        self.ngrams, self.seen = Ngrams(joined, LONGEST), np.zeros((LONGEST, len(joined)), dtype=np.bool_)

    def look(self, stream: np.ndarray) -> np.ndarray:
        """Search a stream; return which n-grams occur in it, (LONGEST, symbols of all texts)."""
        occurs = self.ngrams.occurring(stream)
        self.seen |= occurs
        return occurs

    def new(self, text: int, name: str) -> dict[str, float | None]:
        """Return the shares of the n-grams of a text that were in no stream."""
        here, found = self.slices[text], dict[str, float | None]()
        for n in LENGTHS:
            seen = self.seen[n - 1, here][self.ngrams.numbers[n - 1][here] > 0]
            found[f"{name}_{n}"] = 1 - float(seen.mean()) if len(seen) else None
        return found


class _Characters(_Sequence):
    def __init__(self, texts: Sequence[str]) -> None:
        self.texts, self.spans = texts, list[Span | None]([None] * len(texts))
        alphabet = np.unique(_code_points("".join(texts)))
        self.ids = np.zeros(0x110000, dtype=np.int32)
        self.ids[alphabet] = np.arange(1, len(alphabet) + 1)
        self.ids[ord(BREAK)] = 0
        super().__init__([self.ids[_code_points(text)] for text in texts])

    def read(self, offset: int, chunk: str) -> None:
        """Search a chunk; offset: characters before it."""
        occurs = self.look(self.ids[_code_points(chunk)])
        for i, (text, best) in enumerate(zip(self.texts, self.spans, strict=True)):
            if found := longest_span(text, occurs[:, self.slices[i]], chunk, len(best.text) if best else 0):
                place = chunk.index(found)
                self.spans[i] = Span(found, offset + place - chunk.count(BREAK, 0, place))


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def longest_span(text: str, occurs: np.ndarray, chunk: str, best: int) -> str:
    """Return the longest span of a text that is in a chunk, if it has more than `best` characters, else "".

    occurs: which n-grams of the text are in the chunk, (LONGEST, len(text) + 1). A longer span is a run of them, and
    candidates are searched for in the chunk itself.
    """
    depth, found = int(occurs.any(axis=1).sum()), ""
    if depth > best:
        start, best = int(occurs[depth - 1].argmax()), depth
        found = text[start : start + depth]
    absent = np.append(np.flatnonzero(~occurs[-1]), len(text))
    most = absent[np.searchsorted(absent, np.arange(len(text)))] - np.arange(len(text)) + LONGEST - 1
    tried = set[str]()
    for start in np.flatnonzero(most > max(best, LONGEST)).tolist():
        probe = text[start : start + best + 1]
        if most[start] <= best or probe in tried:
            continue
        tried.add(probe)
        if probe in chunk:
            longer = range(best + 2, int(most[start]) + 1)
            best += 1 + bisect_left(longer, True, key=lambda n, i=start: text[i : i + n] not in chunk)  # type: ignore[misc]
            found = text[start : start + best]
    return found


class _Words(_Sequence):
    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(map(whole_words, texts))
        every = dict.fromkeys(word for words in self.texts for word in words if word != BREAK)
        self.ids = {word: i for i, word in enumerate(every, 1)}
        self.unknown = {word.casefold() for word in every if _LETTER.search(word)}
        self.held, self.last = "", np.zeros(0, dtype=np.int32)
        super().__init__([self._numbers(words) for words in self.texts])

    def read(self, text: str) -> None:
        """Search the words of the next characters, except the last two, which may go on."""
        text = self.held + text
        words: list[str] = WORD.findall(text)
        self.held = text[text.rindex(words[-2], 0, text.rindex(words[-1])) :] if len(words) > 1 else text
        self.look(self.symbols(words[:-2]))

    def symbols(self, words: list[str]) -> np.ndarray:
        """Return the symbols of the next words, after those of the last words, which an n-gram may begin with."""
        self.unknown.difference_update(map(str.casefold, set(words)))
        stream = np.concatenate([self.last, self._numbers(words)])
        self.last = stream[max(0, len(stream) - LONGEST + 1) :]
        return stream

    def _numbers(self, words: list[str]) -> np.ndarray:
        return np.fromiter(map(self.ids.get, words, repeat(0)), dtype=np.int32, count=len(words))

    def invented(self, text: int) -> float | None:
        """Return the share of a text's words with a letter that were in no stream."""
        words = [word.casefold() for word in self.texts[text] if _LETTER.search(word)]
        return sum(word in self.unknown for word in words) / len(words) if words else None


def whole_words(text: str) -> list[str]:
    """Return the words of a text that was cut from a longer one, without those at its ends, which may be incomplete."""
    return [word[0] for word in WORD.finditer(text) if word.start() > 0 and word.end() < len(text)]
