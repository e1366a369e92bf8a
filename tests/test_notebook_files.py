"""The notebooks in notebooks/: each one can install gptexp in Google Colab."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
GUARD = 'if "google.colab" in sys.modules:\n'


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def install_cell(path: Path) -> str:
    return "".join(cells(path, "code")[0]["source"])


def test_all_notebooks_have_the_same_install_cell() -> None:
    assert len(NOTEBOOKS) == 7
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
