"""The page of `gptexp inspect` in a real browser; skipped where there is none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gptexp.inspection.page import render
from gptexp.inspection.view import DifferenceView, PageView, SpanView
from gptexp.notebook import Page
from support.browser import BROWSER, Tab, browser
from support.views import HOSTILE, page_of, view_of

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="needs Chromium, Chrome or Edge")]

WORDS = ["The", " cat", " sat", " on", " the", " mat", ".", "\n", "The", " cat", " ate", "."]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(started: Tab, tmp_path: Path) -> Iterator[Tab]:
    started.size(1200, 900)
    started.dark(False)
    started.problems.clear()
    started.requests.clear()
    yield started
    assert started.problems == []
    assert [url for url in started.requests if not url.startswith("file://")] == []


def show(tab: Tab, place: Path, page: PageView) -> None:
    path = place / "page.html"
    path.write_text(render(page), encoding="utf-8")
    tab.open(path)
    assert tab.value("document.body.dataset.ready") == "yes"


def two_runs() -> PageView:
    first, second = view_of(WORDS), view_of(WORDS, seed=1, attention=False)
    spans = [
        SpanView(text=a.text, bytes=a.bytes, first=a.loss, second=b.loss)
        for a, b in zip(first.tokens, second.tokens, strict=True)
    ]
    return PageView(
        title="two", runs=[first, second], difference=DifferenceView(spans=spans, bits_per_byte=(1.5, 1.25))
    )


def test_texts_of_strangers_are_shown_and_not_executed(tab: Tab, tmp_path: Path) -> None:
    show(tab, tmp_path, page_of(view_of(HOSTILE)))
    shown = tab.value("[...document.querySelectorAll('#text .token')].map(e => e.textContent)")
    assert shown[0] == HOSTILE[0]
    assert shown[HOSTILE.index("\u202egnirts a\u202c")] == "\\u202egnirts a\\u202c"
    assert shown[HOSTILE.index("\x00")] == "\\x00"
    assert tab.value("document.querySelectorAll('img, iframe, object, [onerror]').length") == 0
    tab.size(400, 800)
    assert tab.value("document.documentElement.scrollWidth") == 400


def test_a_cut_character_is_read_in_its_first_token_and_the_card_has_the_bytes(tab: Tab, tmp_path: Path) -> None:
    view = view_of(["它", "\\xe7\\x8c", "\\xab"])
    tokens = [replace(token, reading=text) for token, text in zip(view.tokens, [None, "猫", "·"], strict=True)]
    show(tab, tmp_path, page_of(replace(view, tokens=tokens)))
    assert tab.text("#text .tokens") == "它猫·"
    assert "· rest of the character before it" in tab.text("#text")
    tab.hover('#text [data-token="1"]')
    assert "\\xe7\\x8c" in tab.text("#text .card h3")


def test_a_token_under_the_pointer_shows_its_prediction(tab: Tab, tmp_path: Path) -> None:
    view = view_of(WORDS)
    show(tab, tmp_path, page_of(view))
    tab.hover('#text [data-token="4"]')
    token, card = view.tokens[4], tab.text("#text .card")
    assert f"{token.loss:.2f}" in card
    assert f"{token.rank}\n" in card
    assert "␣the" in card
    assert tab.value("document.querySelectorAll('#text .bars li').length") in (5, 6)
    tab.hover("h1")
    assert "token 4" not in tab.text("#text .card")


def test_a_tap_selects_a_token_in_all_parts_and_arrow_keys_move_on(tab: Tab, tmp_path: Path) -> None:
    tab.size(400, 800, phone=True)
    show(tab, tmp_path, page_of(view_of(WORDS)))
    tab.tap('#text [data-token="4"]')
    assert "token 4" in tab.text("#text .card")
    assert "token 4" in tab.text("#selected")
    assert "token 4" in tab.text("#direct .body h3")
    assert tab.value("document.querySelector('#lens .chosen').dataset.token") == "4"
    tab.key("ArrowRight")
    assert "token 5" in tab.text("#text .card")
    assert tab.value("document.activeElement.dataset.token") == "5"
    tab.size(400, 800)


def test_the_text_is_highlighted_by_the_attention_of_the_token(tab: Tab, tmp_path: Path) -> None:
    view = view_of(WORDS, layers=2, heads=3)
    show(tab, tmp_path, page_of(view))
    tab.click('.thumb[data-layer="1"][data-head="2"]')
    tab.click('#attention [data-token="6"]')
    assert "Token 6 . in layer 1, head 2" in tab.text("#attention .looking h3")
    shares = tab.value(
        "[...document.querySelectorAll('#attention .token')].map(e => Number(e.style.getPropertyValue('--w')))"
    )
    assert math.isclose(sum(share**2 for share in shares[:7]), 1, abs_tol=0.03)  # what token 6 gives away
    assert tab.value("document.querySelectorAll('#attention .token.leaf').length") == len(WORDS) - 7


def test_the_table_of_heads_is_sorted_and_unknown_scores_come_last(tab: Tab, tmp_path: Path) -> None:
    view = view_of(WORDS, layers=2, heads=3)
    show(tab, tmp_path, page_of(view))
    names = tab.value("[...document.querySelectorAll('#heads th')].map(e => e.innerText.split(' ')[0])")
    column = names.index("induction") + 1
    tab.click(f"#heads th:nth-child({column}) button")
    cells = tab.value(
        f"[...document.querySelectorAll('#heads td:nth-child({column})')].map(e => parseFloat(e.innerText))"
    )
    numbers = [cell for cell in cells if cell is not None]
    assert numbers == sorted(numbers, reverse=True)
    assert cells[4:] == [None, None]  # dashes
    heading = f"document.querySelector('#heads th:nth-child({column})')"
    assert tab.value(f"{heading}.getAttribute('aria-sort')") == "descending"


def test_what_a_bigram_lacks_is_replaced_by_one_sentence(tab: Tab, tmp_path: Path) -> None:
    show(tab, tmp_path, page_of(view_of(WORDS, attention=False)))
    assert "This model has no attention" in tab.text("#attention")
    for part in ("attention", "heads", "knockout", "lens", "direct", "norms"):
        assert tab.value(f"document.querySelectorAll('#{part} .body > p').length") == 1
        assert tab.text(f"#{part}").count("\n") <= 2
    assert tab.value("document.querySelectorAll('canvas').length") == 0


def test_two_runs_are_side_by_side_and_one_of_them_is_taken_apart(tab: Tab, tmp_path: Path) -> None:
    show(tab, tmp_path, two_runs())
    left, right = tab.value("[...document.querySelectorAll('#text .tokens')].map(e => e.getBoundingClientRect().x)")
    assert right > left + 400
    assert "−0.250" in tab.text("#difference .facts")
    tab.click('#difference [data-span="3"]')
    assert "token 3" in tab.text("#text .reading:nth-child(2) .card")
    assert tab.value("document.querySelectorAll('canvas').length") > 0
    tab.click('#shown [data-run="1"]')
    assert tab.value("document.querySelectorAll('canvas').length") == 0
    assert "This model has no attention" in tab.text("#attention")
    tab.size(400, 800)
    assert tab.value("document.documentElement.scrollWidth") == 400


def test_the_page_changes_its_colours_in_the_dark_and_prints(tab: Tab, tmp_path: Path) -> None:
    show(tab, tmp_path, page_of(view_of(WORDS)))
    light = tab.value("document.querySelector('.thumb canvas').toDataURL()")
    tab.dark(True)
    tab.frame()
    assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 27)"
    assert tab.value("document.querySelector('.thumb canvas').toDataURL()") != light
    assert tab.pdf().startswith(b"%PDF")


def test_the_page_works_inside_of_a_notebook(tab: Tab, tmp_path: Path) -> None:
    page = tmp_path / "notebook.html"
    page.write_text(Page(render(page_of(view_of(WORDS))))._repr_html_(), encoding="utf-8")
    tab.open(page)
    tab.wait("frames[0].document.readyState === 'complete'")
    assert tab.value("frames[0].document.body.dataset.ready") == "yes"
    assert tab.value("frames[0].document.querySelectorAll('#text .token').length") == len(WORDS)


@pytest.mark.parametrize("texts", [["a"], ["a", "b"]], ids=len)
def test_texts_of_one_or_two_tokens_are_no_error(tab: Tab, tmp_path: Path, texts: list[str]) -> None:
    show(tab, tmp_path, page_of(view_of(texts)))
    assert tab.value("document.querySelectorAll('#text .token').length") == len(texts)
