"""Several processes train as one: the same windows, the same curve."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from conftest import TINY, TINY_GPT, command, story

SETTINGS = [*TINY, *TINY_GPT, "data.path=story.txt", "trainer.max_steps=4", "name=x"]
DOUBLE = "trainer.precision=64-true"


def losses(place: Path, folder: str, *overrides: str) -> list[float]:
    done = command("train", *SETTINGS, *overrides, f"hydra.run.dir={folder}", cwd=place)
    assert done.returncode == 0, done.stderr + done.stdout
    with (place / folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [float(row[name]) for row in rows for name in ("train/loss", "val/loss") if row[name]]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_process_and_two_of_ddp_and_fsdp_give_one_curve(tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text(story(120), encoding="utf-8")
    for strategy, precision, tolerance in (("ddp", DOUBLE, 1e-9), ("fsdp", "trainer.precision=32-true", 1e-5)):
        one = losses(tmp_path, f"one-{strategy}", precision)
        assert len(one) == 6
        layout = [f"trainer={strategy}", "trainer.accelerator=cpu", "trainer.devices=2", precision]
        assert losses(tmp_path, strategy, *layout) == pytest.approx(one, rel=tolerance)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_of_two_processes_goes_on_on_one(tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text(story(120), encoding="utf-8")
    whole = losses(tmp_path, "whole", "schedule=constant", DOUBLE)
    settings = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_steps=2"]
    losses(tmp_path, "half", *settings, "schedule=constant", DOUBLE)
    done = command("train", "resume=half", "trainer.max_steps=4", "hydra.run.dir=rest", "trainer=cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "rest/metrics.csv").open(encoding="utf-8", newline="") as file:
        rest = [float(row["train/loss"]) for row in csv.DictReader(file)]
    assert rest == pytest.approx([whole[3], whole[4]], rel=1e-9)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_a_rank_refuses_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text(story(120), encoding="utf-8")
    settings = [*SETTINGS, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "model.block_size=9999"]
    done = command("train", *settings, "hydra.run.dir=x", cwd=tmp_path)
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if not line.startswith("preparing")] == [
        "error: data=text: the training part has 5724 tokens, but model.block_size=9999 needs at least 10000; "
        "give more text or a smaller model.block_size"
    ]
