"""Fixture of the tests of evaluation: the command in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gptexp.evaluate import main
from support.trained_runs import Evaluate


@pytest.fixture
def evaluate(runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    """Run the command in this process with these arguments; return its JSON output."""
    monkeypatch.chdir(runs)

    def run(*arguments: str) -> dict[str, Any]:
        main([*arguments, "--json", "--logs", "."])
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run
