"""Packages that extend gptexp, installed into a folder of the test: files, and the metadata that pip would write."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from gptexp.commands.new import files

ENTRY_POINTS = "project.entry-points"


def install(site: Path, name: str = "mylab", changes: dict[str, str] | None = None) -> Path:
    """Install what `gptexp new NAME` writes; changes: texts to replace in all files. Returns the package's folder."""
    project = {}
    for path, text in files(name):
        for old, new in (changes or {}).items():
            text = text.replace(old, new)
        project[path] = text
    for path, text in project.items():
        if path.startswith("src/"):
            target = site / path.removeprefix("src/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    offered = tomllib.loads(project["pyproject.toml"])["project"]["entry-points"]
    describe(site, name, "".join(_section(group, points) for group, points in offered.items()))
    return site / name


def _section(group: str, points: dict[str, str]) -> str:
    return f"[{group}]\n" + "".join(f"{point} = {value}\n" for point, value in points.items())


def describe(site: Path, name: str, entry_points: str) -> None:
    """Write the metadata of a package of version 0.1.0."""
    metadata = site / f"{name}-0.1.0.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(entry_points, encoding="utf-8")


def python(*arguments: str, site: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with the packages of a folder."""
    env = {**os.environ, "GPTEXP_PACKAGES": "1", "PYTHONPATH": str(site), "COLUMNS": "80"}
    line = [sys.executable, *arguments]
    return subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, timeout=100)


def gptexp(*arguments: str, site: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of gptexp with the packages of a folder."""
    return python("-m", "gptexp", *arguments, site=site, cwd=cwd)
