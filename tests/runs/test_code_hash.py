"""The hash of the executed code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gptexp.config import plugins
from gptexp.runs import code_hash


def _hash(package: Path) -> str:
    return code_hash.hash_files(code_hash.package_files(package))


def _package(place: Path, **files: bytes) -> Path:
    for name, content in files.items():
        path = place / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return place


def test_the_code_hash_changes_with_contents_and_names_of_files(tmp_path: Path) -> None:
    first = _hash(_package(tmp_path / "a", model=b"x = 1\n", sub__model=b"y = 1\n"))
    assert _hash(_package(tmp_path / "b", model=b"x = 1\n", sub__model=b"y = 1\n")) == first
    assert _hash(_package(tmp_path / "c", model=b"x = 2\n", sub__model=b"y = 1\n")) != first
    assert _hash(_package(tmp_path / "d", model=b"x = 1\n", sub__other=b"y = 1\n")) != first
    assert _hash(_package(tmp_path / "e", model=b"x = 1\n")) != first


def test_the_code_hash_ignores_line_ends_and_hidden_files(tmp_path: Path) -> None:
    package = _package(tmp_path / "a", model=b"x = 1\ny = 2\n")
    first = _hash(package)
    (package / "model.py").write_bytes(b"x = 1\r\ny = 2\r\n")
    (package / ".ipynb_checkpoints").mkdir()
    (package / ".ipynb_checkpoints" / "model.py").write_text("old")
    (package / ".#model.py").symlink_to("nobody@nowhere")  # an editor's lock
    assert _hash(package) == first


def test_the_code_hash_covers_plugins_from_other_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_callbacks.py").write_text("class Mine: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(plugins.PLUGINS, "callbacks", {"my_callbacks.Mine", "not_installed.at_all.Other"})
    assert dict(code_hash.plugin_files()) == {"my_callbacks": tmp_path / "my_callbacks.py"}


def test_the_code_hash_needs_no_torch_and_is_the_same_in_each_process() -> None:
    code = "import sys; from gptexp.runs.code_hash import code_sha256; print(code_sha256(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == [code_hash.code_sha256(), "False"]
