"""README and docs as the tests read them: fenced blocks, the commands in them, and what they show of the output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
ADD_YOUR_OWN = "docs/add-your-own.md"  # tests/test_add_your_own.py runs its commands, together with its code
# In this order: a page may use what an earlier page created.
PAGES = [
    "install",
    "tour",
    "options",
    "data",
    "concepts",
    "settings",
    "generate",
    "evaluate",
    "novelty",
    "inspect",
    "sweeps",
    "compare",
    "judge",
]
PAGES += [
    "fine-tuning",
    "export",
    "resume",
    "reproduce",
    "verify",
    "scale-out",
    "large-corpora",
    "published-numbers",
    "peers",
    "questions",
    "notebooks",
]
PAGES += ["axes", "mup", "glossary", "watch", "runs"]
# Pages without commands to run; their links are checked.
TEXTS = [
    *("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "benchmarks/README.md"),
    *("docs/api.md", "docs/architecture.md", "docs/log.md"),
]
DOCUMENTS = ["README.md", "README.zh.md", *(f"docs/{page}.md" for page in PAGES)]
# Their commands are those of the English pages (tests/documentation/test_chinese.py), so they do not run again.
CHINESE = [f"docs/zh/{path.name}" for path in sorted((ROOT / "docs/zh").glob("*.md"))]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass
class Command:
    """A command line, its position, and the output that is shown below it."""

    document: str
    line: int
    text: str
    shown: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.document}:{self.line}: {self.text}"

    @property
    def error(self) -> str | None:
        """The error message that the document shows."""
        return next((line for line in self.shown if line.startswith("error: ")), None)


@dataclass(frozen=True)
class Block:
    """A fenced block; before: the document up to it."""

    language: str
    text: str
    line: int
    before: str


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str) -> list[Block]:
    """All fenced blocks in order."""
    text = read(document)
    return [
        Block(found[1], found[2], text.count("\n", 0, found.start()) + 2, text[: found.start()])
        for found in FENCE.finditer(text)
    ]


def prose(document: str) -> str:
    """The text without its fenced blocks."""
    return FENCE.sub("", read(document))


def commands(document: str) -> list[Command]:
    """The commands of all `shell` blocks.

    In a block where some lines begin with `$ ` these are the commands, and the others what they print; else every
    line is a command. A line that ends with a backslash goes on in the next.
    """
    return [command for block in blocks(document) if block.language == "shell" for command in _of(document, block)]


def _of(document: str, block: Block) -> Iterator[Command]:
    prompts = any(line.startswith("$ ") for line in block.text.splitlines())
    current: Command | None = None
    for number, line in enumerate(block.text.splitlines(), block.line):
        if current is not None and current.text.endswith("\\") and not current.shown:
            current.text = current.text[:-1] + line.strip()
        elif line.startswith("$ ") or (not prompts and line.strip() and not line.startswith("#")):
            if current is not None:
                yield current
            current = Command(document, number, line.removeprefix("$ "))
        elif current is not None and line.strip():
            current.shown.append(line)
    if current is not None:
        yield current
