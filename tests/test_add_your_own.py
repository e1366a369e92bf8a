"""docs/add-your-own.md is correct: its files are written to the given paths, and its commands run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from gptexp.compose.presets import conf_dir
from gptexp.util.package import PACKAGE
from support import child_processes
from support.documented_commands import noted, run_command
from support.documents import ADD_YOUR_OWN, blocks, commands

PATH = re.compile(r"`((?:src|conf)/[\w/]+\.(?:py|yaml))`")


def files() -> dict[str, str]:
    """Every block of code by the path that the text names last before it."""
    code = [block for block in blocks(ADD_YOUR_OWN) if block.language in ("python", "yaml")]
    return {PATH.findall(block.before)[-1]: block.text for block in code}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package's source files, with the files of the page added."""
    place = tmp_path_factory.mktemp("checkout")
    package = PACKAGE
    shutil.copytree(package, place / "src/gptexp", ignore=shutil.ignore_patterns("__pycache__", "conf"))
    shutil.copytree(package.parent / "hydra_plugins", place / "src/hydra_plugins")
    shutil.copytree(conf_dir(), place / "conf")
    for name, text in files().items():
        assert not (place / name).exists(), f"{name} is there already"
        (place / name).write_text(text, encoding="utf-8")
    return place


def test_the_page_has_a_python_and_a_yaml_file_for_each_example() -> None:
    assert sorted(files()) == [
        "conf/data/sums.yaml",
        "conf/model/gru.yaml",
        "conf/objective/smoothed.yaml",
        "conf/tokenizer/ascii.yaml",
        "src/gptexp/data/corpora/sums.py",
        "src/gptexp/models/gru.py",
        "src/gptexp/objectives/smoothed.py",
        "src/gptexp/tokenizers/ascii.py",
    ]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_examples_of_the_page_train_generate_and_fail_as_described(checkout: Path) -> None:
    failures: list[str] = []
    for command in commands(ADD_YOUR_OWN):
        with noted(command, failures):
            run_command(command, checkout, checkout / "src")
    assert not failures, "\n".join(failures)


@pytest.mark.slow
def test_the_examples_of_the_page_are_listed_by_help(checkout: Path) -> None:
    done = child_processes.run("gptexp.train", "--help", cwd=checkout, source=checkout / "src")
    for line in ("gru", "sums", "ascii", "smoothed"):
        assert re.search(rf"^  {line} +\w", done.out, re.MULTILINE), done.out
