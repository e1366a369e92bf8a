"""docs/architecture.md names what exists: files, names in them, modules and packages."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
# A link to a file of the code, and the names that follow it.
LINK = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)\)((?:, `\w+`)*)")
ORDER = re.compile(r"```text\n(util <.*?)```", re.DOTALL)


def linked() -> list[tuple[str, str, tuple[str, ...]]]:
    """Label, path, and names of each link to a file of the repository."""
    return [(label, path, tuple(re.findall(r"`(\w+)`", names))) for label, path, names in LINK.findall(PAGE)]


def defined(text: str) -> set[str]:
    """The functions, classes and constants at the top level of a module."""
    return set(re.findall(r"^(?:def |class |)(\w+)(?=[(:]| = |: )", text, re.MULTILINE))


def packages() -> set[str]:
    return {path.parent.name for path in (ROOT / "src/gptexp").glob("*/__init__.py")}


@pytest.mark.parametrize(("label", "path", "names"), linked())
def test_linked_files_define_the_names_that_follow(label: str, path: str, names: tuple[str, ...]) -> None:
    assert (ROOT / path).exists()
    assert path.removeprefix("src/gptexp/").rstrip("/") == label.rstrip("/")
    assert not names or set(names) <= defined((ROOT / path).read_text(encoding="utf-8"))


def test_the_page_answers_what_a_newcomer_asks() -> None:
    rows = {line.split("|")[1].strip(): line for line in PAGE.splitlines() if line.startswith("| W")}
    assert "make_norm" in rows["Where does a new norm go?"]
    assert "KVCache" in rows["Where is the KV cache?"]
    assert len(rows) > 20


def test_every_module_that_the_page_names_exists() -> None:
    for name in set(re.findall(r"`(gptexp(?:\.\w+)+)`", PAGE)):
        assert importlib.util.find_spec(name) is not None, name


def test_import_order_lists_every_package_once() -> None:
    order = ORDER.search(PAGE)
    assert order is not None
    listed = re.findall(r"\w+", order[1])
    assert len(listed) == len(set(listed))
    assert set(listed) == packages()


def test_package_table_describes_every_package() -> None:
    described = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert described == packages()
