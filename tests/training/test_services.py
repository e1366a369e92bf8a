"""MLflow and Weights & Biases for real, without a network: `make test-loggers` installs both, and runs these tests."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from support.runs import TINY

RUN = [*TINY, "data.path=story.txt", "model=bigram", "trainer.max_steps=4"]


def train(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gptexp.train", *RUN, *arguments],
        cwd=place, capture_output=True, text=True, check=True, timeout=300, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(find_spec("mlflow") is None, reason="MLflow is not installed")
def test_mlflow_has_every_value_and_setting_in_its_local_database(workplace: Path) -> None:
    done = train(workplace, "logger=mlflow", "-m", "seed=1,2")
    assert "notice" not in done.stderr
    (workplace / "logs").mkdir(exist_ok=True)
    with sqlite3.connect(workplace / "logs/mlflow.db") as database:
        assert database.execute("select status from runs").fetchall() == [("FINISHED",)] * 2
        count = dict(database.execute("select key, count(*) from metrics group by key").fetchall())
        seeds = database.execute("select value from params where key = 'seed' order by value").fetchall()
    assert (count["train/loss"], count["val/bpb"], count["lr"]) == (8, 4, 8)
    assert seeds == [("1",), ("2",)]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(find_spec("wandb") is None, reason="Weights & Biases is not installed")
def test_each_job_is_an_offline_run_of_its_own(workplace: Path) -> None:
    done = train(workplace, "logger=wandb", "logger.plugins.wandb.offline=true", "-m", "seed=1,2")
    assert "notice" not in done.stderr
    stored = list(workplace.glob("wandb/offline-run-*/*.wandb"))
    assert len(stored) == 2
    assert all(b"val/bpb" in path.read_bytes() for path in stored)
