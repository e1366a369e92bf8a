"""Files that describe the project agree with each other: versions, constraints, make targets."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import gptexp

ROOT = Path(__file__).parents[2]
IN_LOWEST = ("compare", "search", "launchers", "gpt2")  # the extras that `make test-lowest` installs
TARGET = re.compile(r"\bmake ([a-z][a-z-]*)")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads(read("pyproject.toml"))["project"]
    return table


def pins(name: str) -> dict[str, str]:
    """Package -> version of a constraints file."""
    lines = (line.partition("#")[0].strip() for line in read(name).splitlines())
    return dict(line.split("==") for line in lines if line)


def requirements() -> Iterator[Requirement]:
    """The requirements of gptexp and of the extras that the tests use."""
    table = project()
    extras = table["optional-dependencies"]
    for line in [*table["dependencies"], *(line for extra in IN_LOWEST for line in extras[extra])]:
        yield Requirement(line)


def test_lowest_constraints_are_the_lower_bounds_of_pyproject() -> None:
    floors = {r.name: next(s.version for s in r.specifier if s.operator == ">=") for r in requirements()}
    lowest = pins("constraints-lowest.txt")
    assert lowest.keys() == floors.keys()
    assert not {name: (lowest[name], floor) for name, floor in floors.items() if not same(lowest[name], floor)}


def same(version: str, floor: str) -> bool:
    """Whether a version is the lower bound, or the first release of the series that the lower bound names."""
    return version == floor or version.startswith(f"{floor}.")


def test_tested_versions_are_allowed_by_pyproject() -> None:
    tested = pins("constraints.txt")
    known = [r for r in requirements() if r.name in tested]
    assert len(known) == 5
    assert all(r.specifier.contains(tested[r.name]) for r in known)


def test_version_is_the_same_everywhere() -> None:
    version = project()["version"]
    assert gptexp.__version__ == version
    assert yaml.safe_load(read("CITATION.cff"))["version"] == version
    assert f"\n## [{version}]" in read("CHANGELOG.md")


@pytest.mark.parametrize(
    "name",
    [
        *(path.relative_to(ROOT).as_posix() for path in (ROOT / ".github/workflows").glob("*.yml")),
        "CONTRIBUTING.md",
        ".devcontainer/devcontainer.json",
    ],
)
def test_make_targets_that_a_file_names_exist(name: str) -> None:
    named = set(TARGET.findall(read(name)))
    if "${{ matrix.target }}" in read(name):
        named |= {row["target"] for row in matrix(name)}
    assert named
    assert named <= set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))


def matrix(name: str) -> list[dict[str, str]]:
    """The rows of the matrix whose targets a workflow starts."""
    rows: list[dict[str, str]] = yaml.safe_load(read(name))["jobs"]["versions"]["strategy"]["matrix"]["include"]
    return rows


def test_every_supported_python_is_tested_on_three_systems() -> None:
    jobs = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]
    classifiers = [c.rpartition(" ")[2] for c in project()["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert jobs["test"]["strategy"]["matrix"]["python"] == classifiers
    assert jobs["test"]["strategy"]["matrix"]["os"] == ["ubuntu-latest", "macos-latest", "windows-latest"]


def test_devcontainer_is_plain_json() -> None:
    assert json.loads(read(".devcontainer/devcontainer.json"))["postCreateCommand"] == "make dev"
