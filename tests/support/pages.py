"""report.html of made run folders, as a browser reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from gptexp.report.comparison import Question, compare_folders
from gptexp.report.data_block import read_elements, sealed
from gptexp.report.page import page
from support.pictures import PLOTS
from support.run_folders import make_run


def sweep(place: Path, **changes: Any) -> Path:
    """Two configurations with two seeds each."""
    for seed in (1, 2):
        make_run(place / f"a{seed}", 2.0 + seed / 100, seed=seed, **changes)
        make_run(place / f"b{seed}", 1.9 + seed / 90, seed=seed, model__n_layer=4, **changes)
    return place


class Page(HTMLParser):
    """Tags, attributes and text of a page, as a browser reads them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def made_page(place: Path) -> str:
    """The page, with PLOTS in place of pictures, which take a second to draw."""
    comparison = compare_folders([place], Question())
    return page(comparison, PLOTS)


def forged(html: str, change: Callable[[dict[str, Any]], None]) -> str:
    """The page with changed data and the checksums of these data, as a stranger can make it."""
    block = json.loads(read_elements(html).blocks[0])
    change(block)
    head, start, rest = html.partition('id="gptexp-data">')
    return head + start + sealed(block) + rest[rest.index("</script>") :]
