"""Fixtures of the tests of objectives: training on labelled texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gptexp.compose.composition import compose
from gptexp.compose.inheritance import check_against_source
from gptexp.training.experiment import run_experiment as run_job
from support.labelled_texts import (
    CLASSIFY,
    MLM,
    Train,
    sentences,
    write_csv,
)


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Train in this process in a folder that contains only texts.csv; the run folder is ./<folder>."""
    monkeypatch.chdir(tmp_path)
    write_csv("texts.csv", sentences(200))

    def run(*overrides: str, folder: str = "run") -> dict[str, Any]:
        config = compose(list(overrides))
        check_against_source(config)
        return run_job(config, Path(folder)).as_plain()

    return run


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts.csv and a classifier trained on it, in ./run."""
    place = tmp_path_factory.mktemp("learned")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        write_csv("texts.csv", sentences(400))
        config = compose([*CLASSIFY, "trainer.max_steps=200", "trainer.val_every_steps=100"])
        run_job(config, Path("run"))
    return place


@pytest.fixture
def masked(train: Train) -> dict[str, Any]:
    """The result of a short run of objective=mlm in ./masked."""
    Path("story.txt").write_text("\n".join(text for text, _ in sentences(120)), encoding="utf-8")
    result: dict[str, Any] = train(*MLM, folder="masked")
    return result
