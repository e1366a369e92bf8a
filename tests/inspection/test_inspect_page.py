"""The page of `gptexp inspect`: its data arrive unchanged, texts stay texts, and it loads nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import pytest

from gptexp.inspection.page import SCRIPTS, render
from support.pages import Page
from support.views import EVIL, HOSTILE, page_of, view_of


class Contents(HTMLParser):
    """What is inside of the script and style elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.script: list[str] = []
        self.style: list[str] = []
        self._open: list[str] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = {"script": self.script, "style": self.style}.get(tag)
        if self._open is not None:
            self._open.append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self._open[-1] += data


@pytest.fixture(scope="module")
def html() -> str:
    return render(page_of(view_of(HOSTILE), title=EVIL))


def data_of(html: str) -> dict[str, Any]:
    return dict(json.loads(Contents(html).script[0]))


def policy_of(html: str) -> dict[str, str]:
    seen = Page(html).attributes
    policy = next(value for name, value in seen if name == "content" and value and value.startswith("default-src"))
    return dict(part.strip().split(" ", 1) for part in policy.split(";"))


def test_the_page_carries_the_texts_unchanged(html: str) -> None:
    tokens = data_of(html)["runs"][0]["tokens"]
    assert [token["text"] for token in tokens] == HOSTILE


def test_texts_of_strangers_add_no_element_to_the_page(html: str) -> None:
    plain, hostile = Page(render(page_of(view_of(["a"])))), Page(html)
    assert hostile.tags == plain.tags
    assert hostile.tags.count("script") == 2
    assert not [name for name, _ in hostile.attributes if name.startswith("on")]
    assert html.count("</script>") == 2
    assert "<!--" not in html


def test_the_title_is_escaped(html: str) -> None:
    assert EVIL in Page(html).text
    assert "alert('x')</script>" not in html.partition('id="gptexp-inspection"')[0]


def test_the_policy_allows_only_the_own_script_and_styles(html: str) -> None:
    contents, policy = Contents(html), policy_of(html)
    assert policy["default-src"] == "'none'"
    for kind, text in (("script", contents.script[1]), ("style", contents.style[0])):
        checksum = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[f"{kind}-src"] == f"'sha256-{checksum}'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert set(policy) == {
        "default-src",
        "script-src",
        "style-src",
        "base-uri",
        "form-action",
        "require-trusted-types-for",
    }


def test_the_page_names_no_remote_address(html: str) -> None:
    seen = Page(html)
    links = [value or "" for name, value in seen.attributes if name in ("src", "href", "srcset", "action")]
    assert links
    assert all(link.startswith("#") for link in links)
    assert {"link", "iframe", "object", "base", "img"}.isdisjoint(seen.tags)
    own = re.sub(r'(?s)<script type="application/json".*?</script>|<title>.*?</title>|<h1>.*?</h1>', "", html)
    assert re.findall(r"https?://[^\s\"']*|url\([^)]*\)|@import", own) == [
        "http://www.w3.org/2000/svg"
    ]  # a name of XML


def test_the_script_never_reads_text_as_html() -> None:
    script = "".join(
        files("gptexp.inspection").joinpath("template", name).read_text(encoding="utf-8") for name in SCRIPTS
    )
    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|fetch\(|import\(", script
    )


def test_every_script_of_the_template_is_in_the_page() -> None:
    names = {file.name for file in files("gptexp.inspection").joinpath("template").iterdir()}
    assert names == {*SCRIPTS, "page.html", "style.css"}


def test_a_layer_of_twelve_heads_and_256_tokens_takes_less_than_700_kilobytes() -> None:
    sizes = [len(render(page_of(view_of(["the "] * 256, layers, 12))).encode()) for layers in (1, 2)]
    assert 500_000 < sizes[1] - sizes[0] < 700_000  # so that twelve layers stay below ten megabytes
    assert sizes[0] < 1_000_000
