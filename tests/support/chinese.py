"""The Chinese pages and notebooks: Chinese prose around the code and the outputs of the English ones.

`make chinese` copies code and outputs, so that nothing runs twice. In a page, a block of commands becomes the English
block with the same commands, but keeps its Chinese comments; another block becomes the English one at its place, unless
it is written in Chinese. In a notebook, only the text of the Markdown cells is its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.documents import FENCE, ROOT

CHINESE = re.compile(r"[\u4e00-\u9fff]")
Update = Callable[[str, str], str]


@dataclass(frozen=True)
class Pair:
    """A page or a notebook in both languages; paths below the root."""

    english: str
    chinese: str


def pages() -> list[Pair]:
    """The pages that exist in Chinese."""
    names = sorted(path.name for path in (ROOT / "docs/zh").glob("*.md"))
    return [Pair("README.md", "README.zh.md"), *(Pair(f"docs/{name}", f"docs/zh/{name}") for name in names)]


def notebooks() -> list[Pair]:
    """The notebooks that exist in Chinese."""
    names = sorted(path.name for path in (ROOT / "notebooks/zh").glob("*.ipynb"))
    return [Pair(f"notebooks/{name}", f"notebooks/zh/{name}") for name in names]


def updated_page(english: str, chinese: str) -> str:
    """The Chinese page with the blocks of the English one."""
    theirs, place = FENCE.findall(english), dict[str, int]()

    def block(found: re.Match[str]) -> str:
        language, text = found.groups()
        same = [one for kind, one in theirs if kind == language]
        nth = place[language] = place.get(language, -1) + 1
        if language == "shell":
            new = next((_commented(one, text) for one in same if typed(one) == typed(text)), text)
        else:
            new = text if CHINESE.search(text) or nth >= len(same) else same[nth]
        return f"```{language}\n{new}```"

    return FENCE.sub(block, chinese)


def typed(block: str) -> list[str]:
    """What a block of commands tells to type, without comments and outputs."""
    lines = [_bare(line) for line in block.splitlines()]
    return [line for line in lines if line.startswith("$ ")] or lines


def _commented(english: str, chinese: str) -> str:
    own = {_bare(line): line for line in chinese.splitlines() if CHINESE.search(line)}
    return "".join(f"{own.get(_bare(line), line)}\n" for line in english.splitlines())


def _bare(line: str) -> str:
    return line.partition(" # ")[0].rstrip()


def updated_notebook(english: str, chinese: str) -> str:
    """The English notebook with the Markdown of the Chinese one. KeyError: a cell is not translated."""
    notebook: dict[str, Any] = json.loads(english)
    prose = {cell["id"]: cell["source"] for cell in json.loads(chinese)["cells"] if cell["cell_type"] == "markdown"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = prose[cell["id"]]
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


def update(pair: Pair, change: Update) -> None:
    english, chinese = (Path(ROOT / name).read_text(encoding="utf-8") for name in (pair.english, pair.chinese))
    (ROOT / pair.chinese).write_text(change(english, chinese), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    for page in pages():
        update(page, updated_page)
    for notebook in notebooks():
        update(notebook, updated_notebook)
