"""What a person may type on a command line, under every Python and Hydra that the project runs with."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import pytest

from gptexp import cli
from gptexp.hydra_versions import run_task
from gptexp.schemas import conf_dir, register_schemas


@pytest.fixture
def checked_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """An argparse that looks into each help text when it is added, as that of Python 3.14 does."""
    add = argparse.ArgumentParser.add_argument

    def checked(self: argparse.ArgumentParser, *names: Any, **settings: Any) -> argparse.Action:
        assert "%" not in (settings.get("help") or "")
        return add(self, *names, **settings)

    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", checked)


@pytest.mark.usefixtures("checked_help")
def test_command_line_composes_where_argparse_checks_help_texts() -> None:
    register_schemas()
    assert cli.checked_arguments(["model=bigram"]) == ["model=bigram"]


@pytest.mark.usefixtures("checked_help")
def test_hydra_runs_a_task_where_argparse_checks_help_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    register_schemas()
    monkeypatch.setattr(sys, "argv", ["train", "--cfg", "job", "--package", "seed", "seed=7"])
    run_task(lambda config: None, str(conf_dir()), "train")
    assert argparse.ArgumentParser is sys.modules["hydra._internal.utils"].argparse.ArgumentParser
