"""Packages import only from packages to their left, and neither packages nor files form a cycle."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import gptexp

SOURCE = Path(gptexp.__file__).parent

# From left to right; packages of one line don't import each other. What lies at the top is at the right end.
ORDER = (
    ("util",),
    ("config",),
    ("machine",),
    ("tokenizers",),
    ("runs",),
    ("models",),
    ("data",),
    ("generation", "objectives", "compose", "report"),
    ("evaluation", "training"),
    ("inspection", "sweep", "exercises"),
    ("studies",),
    ("conformance",),
    ("commands",),
)
LEVEL = {package: level for level, packages in enumerate(ORDER) for package in packages}
TOP = len(ORDER)
MOST_FILES, MOST_LINES = 12, 60
PUBLIC = "notebook.py"  # the API of notebooks, which is no command


def modules(source: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    return {name_of(path, source): path for path in source.rglob("*.py")}


def name_of(path: Path, source: Path) -> str:
    parts = path.relative_to(source.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, known: Iterable[str]) -> Iterator[str]:
    """The modules of gptexp that a file imports, also inside functions."""
    known = set(known)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports with their full name"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in known:
                    yield full
                elif node.module in known:
                    yield node.module


def graph(source: Path) -> dict[str, set[str]]:
    found = modules(source)
    return {name: set(imports(path, found)) - {name} for name, path in found.items()}


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def wrong_imports(edges: dict[str, set[str]]) -> list[str]:
    """Every import that doesn't go to the left, as `importer imports imported`."""
    found = []
    for module, targets in edges.items():
        for target in targets:
            package, imported = package_of(module), package_of(target)
            if package != imported and LEVEL.get(package, TOP) <= LEVEL.get(imported, TOP) and target != "gptexp":
                found.append(f"{module} imports {target}")
    return sorted(found)


def cycle(edges: dict[str, set[str]]) -> list[str]:
    """One cycle of files, or nothing."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_imports_go_only_to_packages_on_the_left() -> None:
    assert wrong_imports(graph(SOURCE)) == []


def test_files_form_no_import_cycle() -> None:
    assert cycle(graph(SOURCE)) == []


def test_every_package_is_part_of_the_import_order() -> None:
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert packages <= LEVEL.keys()


@pytest.mark.parametrize("lazily", [False, True])
def test_a_reversed_import_is_found(tmp_path: Path, lazily: bool) -> None:
    for name, text in {
        "__init__.py": "",
        "util/__init__.py": "",
        "util/files.py": "def f():\n    from gptexp.config import rules\n"
        if lazily
        else "import gptexp.config.rules\n",
        "config/__init__.py": "",
        "config/rules.py": "from gptexp.util import files\n",
    }.items():
        path = tmp_path / "gptexp" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    edges = graph(tmp_path / "gptexp")
    assert wrong_imports(edges) == ["gptexp.util.files imports gptexp.config.rules"]
    assert {"gptexp.util.files", "gptexp.config.rules"} <= set(cycle(edges))


def test_the_top_level_has_few_and_short_files() -> None:
    files = sorted(SOURCE.glob("*.py"))
    assert len(files) <= MOST_FILES
    long = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in files if file.name != PUBLIC}
    assert {name: lines for name, lines in long.items() if lines > MOST_LINES} == {}
