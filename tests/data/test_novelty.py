"""Spans, n-grams and words of a text are found in a corpus exactly as a direct search finds them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gptexp.data import novelty
from gptexp.data.novelty import BREAK, LENGTHS, WORD, Novelty, Span, decoded, measure, text_of, whole_words
from gptexp.tokenizers.byte import ByteTokenizer
from gptexp.tokenizers.char import CharTokenizer
from support.runs import story

PAGE = "她走进厨房，面包已经凉了。窗外下着雪，一只猫在等她。"


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks also in a short corpus."""
    monkeypatch.setattr(novelty, "CHUNK", 37)


def longest(text: str, corpus: str) -> int:
    parts = text.split(BREAK)
    spans = ((part, i, j) for part in parts for i in range(len(part)) for j in range(i + 1, len(part) + 1))
    return max((j - i for part, i, j in spans if part[i:j] in corpus), default=0)


def new_shares(name: str, text: list[str], corpus: list[str]) -> dict[str, float | None]:
    """The share of n-grams of a text that are not in a corpus; both as lists of characters or words."""
    shares: dict[str, float | None] = {}
    for n in LENGTHS:
        every = {tuple(corpus[i : i + n]) for i in range(len(corpus) - n + 1)}
        here = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
        here = [gram for gram in here if BREAK not in gram]
        shares[f"{name}_{n}"] = sum(gram not in every for gram in here) / len(here) if here else None
    return shares


def require_exact(found: Novelty, text: str, corpus: str) -> None:
    """Compare all numbers of a text with those of a direct search."""
    span = found.span.text if found.span else ""
    assert len(span) == longest(text, corpus)
    assert span in text
    if found.span:
        assert corpus.replace(BREAK, "").startswith(span, found.span.offset)
    known = {word.casefold() for word in WORD.findall(corpus)}
    words = [word.casefold() for word in whole_words(text) if any(map(str.isalpha, word))]
    assert found.values == pytest.approx(
        {
            "longest_span": len(span),
            "longest_span_words": len(WORD.findall(span)),
            **new_shares("new_ngrams", whole_words(text), WORD.findall(corpus)),
            **new_shares("new_characters", list(text), list(corpus)),
            "invented_words": sum(word not in known for word in words) / len(words) if words else None,
        }
    )


def pieces_of(text: str, size: int) -> Iterator[str]:
    return (text[i : i + size] for i in range(0, len(text), size))


LETTERS = st.sampled_from(["ab ", "aB'’ \n", f"雪猫, ab{BREAK}", "\x00\x1b[ é́�"])
TEXTS = LETTERS.flatmap(lambda letters: st.tuples(*[st.text(letters, max_size=n) for n in (150, 40, 40)]))


@given(texts=TEXTS, size=st.integers(1, 50), copied=st.slices(150))
@example(texts=("can't " * 9, "can't can'", "x"), size=4, copied=slice(1, 30))
@example(texts=("a" * 60, "a" * 100, ""), size=60, copied=slice(0, 59))
@settings(max_examples=60, deadline=None)
def test_all_numbers_equal_a_direct_search(texts: tuple[str, str, str], size: int, copied: slice) -> None:
    corpus, *some = texts
    some.append(corpus[copied])
    for text, found in zip(some, measure(some, pieces_of(corpus, size)), strict=True):
        require_exact(found, text, corpus)


def test_chinese_text_is_measured_in_characters() -> None:
    """Each ideograph and each punctuation mark is a word."""
    text = "昨天" + PAGE[13:] + "她笑了"
    (found,) = measure([text], [story(40), PAGE, story(40)])
    assert found.span is not None
    assert found.span.text == PAGE[13:]
    assert found.span.offset == len(story(40)) + 13
    assert found.values["longest_span_words"] == len(PAGE) - 13
    require_exact(found, text, story(40) + PAGE + story(40))


SECOND = "A second corpus, in which a thief explains at length why the seventh loaf was his by right and by hunger."


def test_no_span_or_ngram_crosses_the_end_of_a_document() -> None:
    (found,) = measure(["to the end of one, and"], [f"to the end{BREAK} of one", BREAK, ", and"])
    assert found.span == Span("to the end", 0)
    assert found.values["new_ngrams_3"] == 1.0
    (cut,) = measure([f"the end{BREAK}of one"], ["the end of one"])
    assert cut.span == Span("the end", 0)


def test_an_offset_counts_the_characters_of_the_documents_before_it() -> None:
    corpus = "".join(f"{i}{BREAK}" for i in range(100)) + SECOND
    (found,) = measure(["xx" + SECOND[40:90] + "xx"], pieces_of(corpus, 7))
    assert found.span == Span(SECOND[40:90], 190 + 40)


def test_words_that_a_window_may_have_cut_are_not_counted() -> None:
    (found,) = measure(["ead the loaf was cold, an"], ["the loaf was cold"])
    assert whole_words(found.text) == ["the", "loaf", "was", "cold", ","]
    assert found.values["invented_words"] == 0
    assert found.values["new_ngrams_3"] == pytest.approx(1 / 3)


def test_an_invented_word_is_one_that_no_case_of_the_corpus_has() -> None:
    (found,) = measure([" The loaf BREADED 42 times, Straße! "], ["the LOAF times STRASSE"])
    assert found.values["invented_words"] == 1 / 5


@pytest.mark.parametrize("text", ["", BREAK, BREAK * 3])
def test_a_text_without_characters_has_no_shares(text: str) -> None:
    (found,) = measure([text], ["a corpus"])
    assert found.span is None
    lengths = (found.values.pop("longest_span"), found.values.pop("longest_span_words"))
    assert lengths == (0, 0)
    assert {*found.values.values()} == {None}


def test_in_an_empty_corpus_nothing_is_found() -> None:
    (found,) = measure([SECOND], [])
    assert found.span is None
    assert {*found.values.values()} == {0, 1.0}
    assert measure([], ["a corpus"]) == []


def test_bytes_of_a_character_that_is_cut_are_left_out() -> None:
    tokens = np.frombuffer("雪猫é".encode(), dtype=np.uint8).astype(np.int64)
    assert text_of(ByteTokenizer(), tokens[1:]) == "猫é"
    assert text_of(ByteTokenizer(), tokens[2:-1]) == "猫"
    assert text_of(ByteTokenizer(), np.array([255, 97])) == "�a"


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_tokens_are_decoded_across_pieces_and_documents(size: int) -> None:
    byte = ByteTokenizer()
    tokens = np.concatenate([byte.encode("雪a"), [256], byte.encode("é"), [256, 256], byte.encode("猫")])
    pieces = [tokens[i : i + size] for i in range(0, len(tokens), size)]
    assert "".join(decoded(byte, pieces)) == f"雪a{BREAK}é{BREAK}{BREAK}猫"
    char = CharTokenizer("abc")
    assert "".join(decoded(char, [char.encode("abc"), char.encode("")])) == "abc"
