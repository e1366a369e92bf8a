"""The Chinese pages and notebooks say what the English ones say: same commands, outputs, code and headings."""

from __future__ import annotations

import json
import re

import pytest
from markdown_it import MarkdownIt

from support.chinese import CHINESE, Pair, notebooks, pages, typed, updated_notebook, updated_page
from support.documents import FENCE, LINK, SPAN, prose, read

ONLY_CHINESE = {"README.zh.md": 1}  # sections, each with one block of commands, that the English page does not have
PAGES = pytest.mark.parametrize("pair", pages(), ids=lambda pair: pair.chinese)
NOTEBOOKS = pytest.mark.parametrize("pair", notebooks(), ids=lambda pair: pair.chinese)


def levels(text: str) -> list[str]:
    """The heading marks of a text in order."""
    return re.findall(r"^(#+) ", FENCE.sub("", text), re.MULTILINE)


def shell(document: str) -> list[list[str]]:
    return [typed(text) for language, text in FENCE.findall(read(document)) if language == "shell"]


@PAGES
def test_chinese_page_has_the_headings_of_the_english_page(pair: Pair) -> None:
    own = ONLY_CHINESE.get(pair.chinese, 0)
    assert sorted(levels(read(pair.chinese))) == sorted(levels(read(pair.english)) + ["##"] * own)


@PAGES
def test_chinese_page_has_the_commands_of_the_english_page(pair: Pair) -> None:
    english, chinese = shell(pair.english), shell(pair.chinese)
    assert [block for block in chinese if block in english] == english
    assert len(chinese) == len(english) + ONLY_CHINESE.get(pair.chinese, 0)


@PAGES
def test_chinese_page_shows_the_outputs_of_the_english_page(pair: Pair) -> None:
    assert updated_page(read(pair.english), read(pair.chinese)) == read(pair.chinese), "run `make chinese`"


# The examples of README.zh.md are Chinese texts.
@pytest.mark.parametrize("pair", [p for p in pages() if p.chinese != "README.zh.md"], ids=lambda pair: pair.chinese)
def test_chinese_page_names_the_settings_and_files_of_the_english_page(pair: Pair) -> None:
    english, chinese = (set(SPAN.findall(prose(page))) for page in (pair.english, pair.chinese))
    assert english <= chinese
    assert chinese == english or pair.chinese in ONLY_CHINESE


@PAGES
def test_pages_in_both_languages_link_to_each_other(pair: Pair) -> None:
    up = "../" * pair.chinese.count("/")
    assert f"\n\n[English]({up[:-3] if up else ''}{pair.english.removeprefix('docs/')})\n" in read(pair.chinese)
    link = re.escape(f"]({pair.chinese.removeprefix('docs/')})")
    assert re.search(rf"\A# .*\n\n\[中文\w*{link}\n", read(pair.english))


@PAGES
def test_chinese_page_links_to_chinese_pages_where_they_exist(pair: Pair) -> None:
    translated = {one.chinese.rpartition("/")[2] for one in pages()[1:]}
    targets = [target.partition("#")[0] for target in LINK.findall(prose(pair.chinese))][1:]  # the first is English
    expected = "docs/zh/" if pair.chinese == "README.zh.md" else ""
    assert {t for t in targets if t.rpartition("/")[2] in translated} <= {f"{expected}{name}" for name in translated}


@pytest.mark.parametrize("document", [pair.chinese for pair in pages()])
def test_no_line_of_chinese_prose_ends_within_a_paragraph(document: str) -> None:
    """A line end inside a paragraph would show as a space between two Chinese characters."""
    assert not re.findall(r"[\u3000-\u9fff\uff00-\uffef]\n[^\n|#*>0-9-].*", prose(document))


@pytest.mark.parametrize("document", [pair.chinese for pair in (*pages(), *notebooks())])
def test_emphasis_in_chinese_text_is_rendered(document: str) -> None:
    """`**…。**字` stays as it is: CommonMark wants a space after the closing marks there."""
    for text in markdown(document) if document.endswith(".ipynb") else [read(document)]:
        without_formulas = re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$", "F", text, flags=re.DOTALL)
        parts = [
            part for token in MarkdownIt().enable("table").parse(without_formulas) for part in token.children or ()
        ]
        assert not [part.content for part in parts if part.type == "text" and "*" in part.content]


@NOTEBOOKS
def test_chinese_notebook_has_the_code_and_outputs_of_the_english_one(pair: Pair) -> None:
    assert updated_notebook(read(pair.english), read(pair.chinese)) == read(pair.chinese), "run `make chinese`"


@NOTEBOOKS
def test_chinese_notebook_has_the_headings_and_formulas_of_the_english_one(pair: Pair) -> None:
    for theirs, own in zip(markdown(pair.english), markdown(pair.chinese), strict=True):
        assert levels(own) == levels(theirs)
        assert own.count("$$") == theirs.count("$$")
        assert CHINESE.search(own)


def markdown(document: str) -> list[str]:
    cells = json.loads(read(document))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
