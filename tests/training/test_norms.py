"""trainer.log_norms measures each step and leaves training bitwise unchanged."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gptexp.compose.composition import compose
from gptexp.runs.opening import load
from gptexp.training.callbacks.norms import groups_of
from gptexp.training.experiment import run_experiment
from support.runs import TINY, TINY_GPT, command

Train = Callable[..., dict[str, Any]]

NORMS = "trainer.log_norms=true"
EACH_STEP = ["trainer.max_steps=3", "trainer.val_every_steps=1"]
SETTINGS = [*TINY_GPT, "model.dropout=0.1", "data.micro_batch_size=2", "trainer.gradient_clip=0.05", "tokenizer=byte"]
GROUPS = ["embedding", "h.0.attn", "h.0.mlp", "norms"]
QUANTITIES = ["gradient", "weight", "update", "relative_update"]


def rows(folder: str) -> list[dict[str, str]]:
    with Path(folder, "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def norms(folder: str, step: int = -1) -> dict[str, float]:
    """The norms of a step, the last one by default, without the prefix norm/."""
    return {name[5:]: float(value) for name, value in rows(folder)[step].items() if name.startswith("norm/")}


def weights(folder: str, name: str = "last.ckpt") -> dict[str, Tensor]:
    return load(Path(folder, "checkpoints", name)).model


def require_equal_weights(a: str, b: str) -> None:
    first, second = weights(a), weights(b)
    assert all(torch.equal(first[name], second[name]) for name in first)


def norm_of_group(model: dict[str, Tensor], *parts: str) -> float:
    """The norm of the tensors with one of the parts in their names."""
    inside = [t for name, t in model.items() if any(part in name for part in parts)]
    return math.sqrt(sum(float(t.double().square().sum()) for t in inside))


@pytest.mark.parametrize(
    "settings", [["optimizer=adamw"], ["model.tie_weights=false"], ["trainer.precision=bf16-mixed"]], ids=" ".join
)
def test_norms_leave_accumulated_and_clipped_training_unchanged(
    train_here: Train, workplace: Path, settings: list[str]
) -> None:
    plain = train_here(*SETTINGS, *settings, folder="plain")
    seen = train_here(*SETTINGS, *settings, NORMS, "callbacks.attention_entropy=true", folder="seen")
    assert seen["metrics"] == plain["metrics"]
    require_equal_weights("plain", "seen")
    assert [name for name in rows("plain")[0] if "norm/" in name or "entropy" in name] == []
    head = ["head"] if "model.tie_weights=false" in settings else []
    names = [f"{quantity}/{group}" for quantity in QUANTITIES for group in [*GROUPS, *head]]
    assert [list(norms("seen", step)) for step in (0, 1)] == [names, names]


def test_norms_are_those_of_checkpoints_and_of_the_gradient_before_clipping(train_here: Train, workplace: Path) -> None:
    train_here(*SETTINGS, *EACH_STEP, NORMS)
    found, before, after = norms("run"), weights("run", "previous.ckpt"), weights("run")
    update = {name: after[name] - before[name] for name in after}
    parts = {"h.0.attn": ["h.0.attn."], "h.0.mlp": ["h.0.mlp."], "norms": ["ln_"], "embedding": [".wte.", ".wpe."]}
    for group in GROUPS:
        assert found[f"weight/{group}"] == pytest.approx(norm_of_group(after, *parts[group]), rel=1e-5)
        assert found[f"update/{group}"] == pytest.approx(norm_of_group(update, *parts[group]), rel=1e-4)
        ratio = found[f"update/{group}"] / found[f"weight/{group}"]
        assert found[f"relative_update/{group}"] == pytest.approx(ratio, rel=1e-5)
    whole = math.hypot(*(found[f"gradient/{group}"] for group in GROUPS))
    assert whole == pytest.approx(float(rows("run")[-1]["grad_norm"]), rel=1e-5)
    assert whole > 0.05  # it was clipped afterwards


def test_norms_are_logged_at_logged_steps_only(train_here: Train, workplace: Path) -> None:
    train_here(*TINY_GPT, NORMS, "trainer.max_steps=7", "trainer.val_every_steps=3", "trainer.log_every_steps=4")
    logged = {int(row["step"]): row["norm/update/norms"] != "" for row in rows("run")}
    assert logged == {1: True, 3: False, 4: True, 6: False, 7: True}


def test_norms_of_adapters_are_those_of_trained_parameters(train_here: Train, workplace: Path) -> None:
    train_here(*TINY_GPT, folder="source")
    lora = ["init_from=source", "optimizer=adamw", "finetune=lora", "finetune.rank=2", "trainer.val_every_steps=1"]
    train_here(*lora, folder="plain")
    train_here(*lora, NORMS, folder="seen")
    require_equal_weights("plain", "seen")
    found, after = norms("seen"), {name: t for name, t in weights("seen").items() if ".lora_" in name}
    assert {name.partition("/")[2] for name in found} == {"h.0.attn"}  # finetune.targets
    assert found["weight/h.0.attn"] == pytest.approx(norm_of_group(after, "h.0.attn."), rel=1e-5)


@pytest.mark.parametrize(("model", "groups"), [("bigram", ["embedding"]), ("mlp", ["embedding", "head", "other"])])
def test_models_without_blocks_have_norms_too(
    train_here: Train, workplace: Path, model: str, groups: list[str]
) -> None:
    train_here(f"model={model}", NORMS)
    assert list(norms("run")) == [f"{quantity}/{group}" for quantity in QUANTITIES for group in groups]


def test_a_resumed_run_logs_the_same_norms(train_here: Train, workplace: Path) -> None:
    schedule = ["schedule=constant", "schedule.warmup_steps=0", *SETTINGS, NORMS]
    train_here(*schedule, "trainer.max_steps=4", folder="whole")
    train_here(*schedule, "trainer.max_steps=2")
    Path("run/result.json").unlink()  # simulates a stop at this step
    run_experiment(compose(["resume=run", "trainer.max_steps=4", "trainer=cpu", NORMS]), Path("run"))
    assert [norms("run", step) for step in range(4)] == [norms("whole", step) for step in range(4)]
    require_equal_weights("run", "whole")


def test_a_run_resumed_without_norms_keeps_those_of_its_first_steps(train_here: Train, workplace: Path) -> None:
    train_here(*TINY_GPT, NORMS)
    before = [norms("run", step) for step in (0, 1)]
    Path("run/result.json").unlink()
    config = compose(["resume=run", "trainer.max_steps=3", "trainer=cpu", "trainer.log_norms=false"])
    run_experiment(config, Path("run"))
    assert [norms("run", step) for step in (0, 1)] == before
    assert rows("run")[2]["norm/weight/norms"] == ""


def test_every_trained_parameter_is_in_one_group() -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(3, 2), torch.nn.Linear(2, 2), torch.nn.Linear(2, 3))
    model[1].requires_grad_(False)
    assert {name: len(group) for name, group in groups_of(model).items()} == {"embedding": 1, "other": 2}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_log_the_norms_of_one_and_train_unchanged(train_here: Train, workplace: Path) -> None:
    settings = [
        *TINY,
        *TINY_GPT,
        "data.path=story.txt",
        "trainer.precision=64-true",
        "callbacks.attention_entropy=true",
    ]
    two, entropy = ["trainer.accelerator=cpu", "trainer.devices=2"], "attention_entropy/h.0"
    train_here(*settings, NORMS, folder="one")
    for folder, chosen in (
        ("plain", ["trainer=ddp"]),
        ("ddp", ["trainer=ddp", NORMS]),
        ("fsdp", ["trainer=fsdp", NORMS]),
    ):
        done = command("train", *settings, *chosen, *two, f"hydra.run.dir={folder}", cwd=workplace, quick=True)
        assert done.returncode == 0, done.stderr
    require_equal_weights("plain", "ddp")
    for folder in ("ddp", "fsdp"):
        assert norms(folder) == pytest.approx(norms("one"), rel=1e-6)
        bits = [float(rows(name)[-1][entropy]) for name in (folder, "one")]
        assert bits[0] == pytest.approx(bits[1], rel=1e-6)
