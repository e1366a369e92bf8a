"""The notebooks in notebooks/: each one can install gptexp in Google Colab, and its imports exist."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SCRIPTS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))
GUARD = 'if "google.colab" in sys.modules:\n'


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def install_cell(path: Path) -> str:
    return "".join(cells(path, "code")[0]["source"])


def test_all_notebooks_have_the_same_install_cell() -> None:
    assert len(NOTEBOOKS) == 8
    sources = {install_cell(path) for path in NOTEBOOKS}
    assert len(sources) == 1
    (source,) = sources
    assert source.count("REPOSITORY = ") == 1
    assert '%pip install --quiet ".[compare,launchers,gpt2]"' in source


def test_the_install_cell_does_nothing_outside_colab() -> None:
    before, guard, guarded = install_cell(NOTEBOOKS[0]).partition(GUARD)
    assert guard == GUARD
    assert all(line.startswith("    ") for line in guarded.splitlines())
    done = subprocess.run([sys.executable, "-c", before], capture_output=True, text=True, check=True)
    assert done.stdout == ""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_store_no_timestamps_of_their_last_run(path: Path) -> None:
    assert all(cell["metadata"] == {} for kind in ("code", "markdown") for cell in cells(path, kind))


def python_of(path: Path) -> str:
    """The code of a notebook without its install cell, or of a script."""
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    return "\n".join("".join(cell["source"]) for cell in cells(path, "code")[1:])


@pytest.mark.parametrize("path", [*NOTEBOOKS, *SCRIPTS], ids=lambda path: path.stem)
def test_imports_from_gptexp_in_notebooks_and_benchmarks_exist(path: Path) -> None:
    for node in ast.walk(ast.parse(python_of(path))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gptexp":
            module = importlib.import_module(str(node.module))
            for name in node.names:
                assert hasattr(module, name.name) or importlib.import_module(f"{node.module}.{name.name}")
