"""`gptexp new`: names and folders that it refuses, and a package that is complete."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest
import yaml

from gptexp.commands import new


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("My-Lab", "must be a name for import"),
        ("../lab", "must be a name for import"),
        ("class", "must be a name for import"),
        ("", "must be a name for import"),
        ("a" * 60, "must be a name for import"),
        ("json", "a module of this name is installed; choose another name"),
        ("torch", "a module of this name is installed; choose another name"),
        ("gptexp", "a module of this name is installed; choose another name"),
    ],
)
def test_a_name_that_cannot_be_imported_is_refused(
    name: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        new.main([name])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: NAME={name}: {why}")
    assert not any(tmp_path.iterdir())


def test_a_folder_with_files_is_never_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab/notes.txt").write_text("mine")
    with pytest.raises(SystemExit):
        new.main(["mylab"])
    assert capsys.readouterr().err == "error: mylab: not empty, and never overwritten; choose another folder\n"
    assert [path.name for path in tmp_path.rglob("*")] == ["mylab", "notes.txt"]


def test_nothing_is_left_if_a_file_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> object:
        yield "a.txt", "a"
        raise OSError("disk")

    monkeypatch.setattr(new, "files", broken)
    with pytest.raises(OSError, match="disk"):
        new.write("mylab", tmp_path / "mylab")
    assert not any(tmp_path.iterdir())


def test_a_package_has_its_name_everywhere_and_valid_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    new.main(["our_models", "--folder", "work"])
    assert "next: cd work && make test · gptexp train experiment=our_models" in capsys.readouterr().out
    files = sorted(path for path in (tmp_path / "work").rglob("*") if path.is_file())
    names = [path.relative_to(tmp_path / "work").as_posix() for path in files]
    assert names == sorted(
        [
            *(".gitignore", "Makefile", "README.md", "pyproject.toml", "tests/test_our_models.py"),
            *(f"src/our_models/{name}.py" for name in ("__init__", "config", "models/__init__", "models/gru")),
            *(f"src/our_models/corpora/{name}.py" for name in ("__init__", "sums")),
            *(f"src/our_models/conf/{name}.yaml" for name in ("experiment/our_models", "sweep/our_models")),
            *(f"src/our_models/conf/{name}.yaml" for name in ("data/our_models_sums", "model/our_models_gru")),
        ]
    )
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert "mylab" not in text
        if path.suffix == ".py":
            ast.parse(text)
        elif path.suffix == ".yaml":
            assert yaml.safe_load(text)["defaults"]
    project = tomllib.loads((tmp_path / "work/pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "our_models"
    assert project["entry-points"]["gptexp.models"] == {"our_models_gru": "our_models.config:GRUConfig"}
