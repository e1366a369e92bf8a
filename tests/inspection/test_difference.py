"""Two runs on the same text are compared over the shortest stretches that both their tokens form."""

from __future__ import annotations

import pytest

from gptexp.inspection.difference import difference
from gptexp.inspection.view import TokenView


def views(*pieces: tuple[str, float | None]) -> list[TokenView]:
    return [TokenView(text, len(text.encode()), loss, None, None, []) for text, loss in pieces]


def test_equal_tokens_are_compared_one_by_one() -> None:
    found = difference(b"abc", views(("a", None), ("b", 1.0), ("c", 2.0)), views(("a", None), ("b", 3.0), ("c", 0.5)))
    assert [(s.text, s.bytes, s.first, s.second) for s in found.spans] == [
        ("a", 1, None, None),
        ("b", 1, 1.0, 3.0),
        ("c", 1, 2.0, 0.5),
    ]
    assert found.bits_per_byte == (1.5, 1.75)


def test_other_tokens_are_compared_where_both_end() -> None:
    first = views(("a", None), ("b", 1.0), ("c", 2.0), ("d", 4.0), ("e", 8.0), ("f", 9.0))
    second = views(("ab", None), ("cde", 7.0), ("fg", 1.0))
    found = difference(b"abcdef", first, second)
    assert [(s.text, s.first, s.second) for s in found.spans] == [("ab", None, None), ("cde", 14.0, 7.0)]
    assert found.bits_per_byte == pytest.approx((14 / 3, 7 / 3))


def test_a_cut_character_is_shown_in_its_first_part() -> None:
    half = [TokenView("", 1, 1.0, None, None, []), TokenView("", 1, 1.0, None, None, [])]
    assert [s.text for s in difference("é".encode(), half, half).spans] == ["é", "·"]


def test_tokens_without_bytes_belong_to_no_stretch() -> None:
    end = TokenView("<|endoftext|>", 0, None, None, None, [])
    found = difference(b"ab", [*views(("a", 1.0)), end, *views(("b", 1.0))], views(("a", 2.0), ("b", 2.0)))
    assert [(s.first, s.second) for s in found.spans] == [(1.0, 2.0), (1.0, 2.0)]


def test_texts_that_share_no_end_have_no_comparison() -> None:
    found = difference(b"abc", views(("ab", None)), views(("abc", None)))
    assert (found.spans, found.bits_per_byte) == ([], None)
