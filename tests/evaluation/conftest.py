"""Fixtures of the tests of evaluation: runs, and the command in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gptexp.compose.composition import compose
from gptexp.evaluate import main
from gptexp.training.experiment import run_experiment as run_job
from support.runs import TINY, TINY_GPT, story
from support.trained_runs import PLAIN, TEXT, Evaluate


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text and runs: gpt (block_size 16, characters), words (bpe), bigram."""
    place = tmp_path_factory.mktemp("runs")
    (place / "story.txt").write_text(story(120), encoding="utf-8")
    (place / "some.txt").write_text(story(31), encoding="utf-8")
    (place / "short.txt").write_text(TEXT, encoding="utf-8")
    (place / "plain.txt").write_text(PLAIN, encoding="utf-8")
    with pytest.MonkeyPatch.context() as here:
        here.chdir(place)
        steps = ["trainer.max_steps=20", "trainer.val_every_steps=20", "data.path=story.txt"]
        run_job(compose([*TINY, *TINY_GPT, *steps, "model.position=learned"]), Path("gpt"))
        run_job(compose([*TINY, *TINY_GPT, *steps, "tokenizer=bpe", "tokenizer.vocab_size=300"]), Path("words"))
        run_job(compose([*TINY, *steps, "model=bigram"]), Path("bigram"))
    return place


@pytest.fixture
def evaluate(runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    """Run the command in this process with these arguments; return its JSON output."""
    monkeypatch.chdir(runs)

    def run(*arguments: str) -> dict[str, Any]:
        main([*arguments, "--json", "--logs", "."])
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run
