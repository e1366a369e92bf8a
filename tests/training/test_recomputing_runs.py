"""trainer.recompute=blocks: the same run with less memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gptexp.compose.composition import compose
from gptexp.config import Config, Recompute
from gptexp.config.conversion import to_plain
from gptexp.config.fingerprint import identity
from gptexp.config.trajectory import trajectory
from gptexp.data.batches import plan_batches
from gptexp.machine import hardware
from gptexp.runs.opening import load
from gptexp.training.experiment import run_experiment as run_job
from support.runs import TINY_GPT

Train = Callable[..., dict[str, Any]]

BLOCKS = "trainer.recompute=blocks"
DROPOUT = [*TINY_GPT, "model.n_layer=2", "model.dropout=0.2", "model.attn_dropout=0.2", "data.micro_batch_size=2"]


def test_a_run_that_recomputes_from_its_third_step_is_bitwise_equal(train_here: Train, workplace: Path) -> None:
    settings = [*DROPOUT, "schedule=constant", "schedule.warmup_steps=1"]
    train_here(*settings, "trainer.max_steps=4", folder="whole")
    train_here(*settings, "trainer.max_steps=2", folder="moved")
    (workplace / "moved/result.json").unlink()  # simulates a stop at this step
    run_job(compose(["resume=moved", "trainer.max_steps=4", BLOCKS, "trainer=cpu"]), Path("moved"))
    whole, moved = (load(Path(folder, "checkpoints/last.ckpt")) for folder in ("whole", "moved"))
    assert [name for name, value in whole.model.items() if not torch.equal(value, moved.model[name])] == []
    assert {**whole.metrics, "seconds": 0} == {**moved.metrics, "seconds": 0}
    kept = compose(["resume=moved", "trainer.max_steps=6", "trainer=cpu"])  # it needs as little memory as before
    assert kept.trainer.recompute is Recompute.blocks


def gpt2(*overrides: str) -> Config:
    return compose(["model=gpt2_small", "data=pydocs", "data.global_batch_size=64", "trainer=cpu", *overrides])


def test_more_windows_fit_if_blocks_are_recomputed() -> None:
    def windows(*overrides: str, gib: int) -> int:
        return plan_batches(gpt2(*overrides), vocab_size=50257, world_size=1, memory=gib * 2**30).micro_batch

    token, width, layers, length = 16 * 50257, 768, 12, 1024
    assert windows(gib=16) == 8  # of 16 GiB / (1024 * (token + 68 * 12 * width)) = 12
    assert windows(BLOCKS, gib=16) == 16
    assert 16 * 2**30 // (length * (token + (68 + 4 * (layers - 1)) * width)) == 18


def test_recomputation_is_no_part_of_the_experiment_but_of_the_exact_steps() -> None:
    stored, recomputed = (to_plain(gpt2(*overrides)) for overrides in ([], [BLOCKS]))
    assert identity(stored) == identity(recomputed)
    bases = {path.base for plain in (stored, recomputed) if (path := trajectory(plain, 5)) is not None}
    assert len(bases) == 2  # compiled runs agree only to rounding


def test_recomputation_is_refused_where_it_is_not_possible(train_here: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    for model in ("bigram", "mlp"):
        with pytest.raises(
            ValueError, match=r"^trainer\.recompute=blocks: the model has no blocks; use trainer\.recom"
        ):
            compose([f"model={model}", BLOCKS])
    with pytest.raises(ValueError, match=r"^trainer\.recompute=all: .*none.*blocks"):
        compose(["trainer.recompute=all"])
    monkeypatch.setattr(hardware, "accelerator_of", lambda config: "mps")
    with pytest.raises(ValueError, match=r"^trainer\.recompute=blocks: not supported on an Apple GPU"):
        train_here(*TINY_GPT, BLOCKS)
