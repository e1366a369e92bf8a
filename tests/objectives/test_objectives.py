"""Several objectives together: comparison, older runs, untrusted files, suggested commands, pretraining."""

from __future__ import annotations

import random
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gptexp.compose.composition import config_from_plain
from gptexp.config.objective import LMConfig
from gptexp.config.tokenizer import ByteConfig, CharConfig
from gptexp.data.prepared import DataFacts
from gptexp.objectives import implementation
from gptexp.objectives.loading import load_model, load_trained
from gptexp.report.comparison import Question, compare_folders
from gptexp.runs import checkpoint as ckpt
from gptexp.runs.finding import stored_settings
from gptexp.runs.opening import load
from gptexp.tokenizers import Tokenizer, train_tokenizer
from gptexp.util.errors import RunError
from support.labelled_texts import (
    MLM,
    Train,
    sentences,
    write_csv,
)


def test_runs_of_different_objectives_are_not_compared(masked: dict[str, Any], learned: Path, train: Train) -> None:
    lm = [setting for setting in MLM if setting != "objective=mlm"]
    train(*lm, folder="all/lm")
    shutil.copytree("masked", "all/mlm")
    shutil.copytree(learned / "run", "all/labels")
    comparison = compare_folders([Path("all")], Question())
    reasons = {lost.folder.name: lost.reason for lost in comparison.left_out}
    assert reasons == {
        "mlm": "objective=mlm has no val/bpb; it has val/mlm_accuracy, val/mlm_loss",
        "labels": "objective=classification has no val/bpb; it has val/accuracy, val/loss, val/macro_f1",
    }
    with pytest.raises(RunError, match=r"another objective, where val/loss measures something else"):
        compare_folders([Path("all")], Question(metric="val/loss"))
    accuracy = compare_folders([Path("all/labels")], Question(metric="val/accuracy"))
    assert len(accuracy.rows) == 1


def test_a_run_without_an_objective_is_a_language_model(train: Train) -> None:
    from gptexp.config.fingerprint import identity

    Path("story.txt").write_text("\n".join(text for text, _ in sentences(120)), encoding="utf-8")
    train(*[setting for setting in MLM if setting != "objective=mlm"], folder="old")
    path = Path("old/checkpoints/last.ckpt")
    saved = load(path)
    settings = saved.config.copy()
    reported = identity(settings)
    del settings["objective"]
    assert identity(settings) == reported
    saved.model = {name: tensor.clone() for name, tensor in saved.model.items()}
    saved.optimizer = {n: {k: v.clone() for k, v in state.items()} for n, state in saved.optimizer.items()}
    saved.config = settings
    ckpt.save(saved, path)
    config = Path("old/config.yaml")
    lines = config.read_text(encoding="utf-8").splitlines(keepends=True)
    start = lines.index("objective:\n")
    config.write_text("".join(lines[:start] + lines[start + 2 :]), encoding="utf-8")
    assert "objective" not in config.read_text(encoding="utf-8")
    assert stored_settings("old")["objective"] == {"kind": "lm"}
    assert config_from_plain(settings).objective.kind == "lm"
    model, _ = load_model(load(path), path)
    assert model(torch.zeros(1, 2, dtype=torch.int64)).shape[:2] == (1, 2)
    assert train("resume=old", "trainer.max_steps=6", folder="longer")["steps"] == 6


def test_untrusted_labels_are_treated_as_data(learned: Path) -> None:
    saved = load(learned / "run/checkpoints/last.ckpt")
    for wrong in (
        {"labels": ["a"]},
        {"labels": ["a", "a"]},
        {"labels": "ab"},
        {"counts": [1, -1]},
        {"labels": [["a"], 1]},
    ):
        changed = ckpt.Checkpoint(**{n: getattr(saved, n) for n in saved.__slots__} | {"data": {**saved.data, **wrong}})
        with pytest.raises(ValueError, match=r"^run: .*classifier"):
            load_trained(changed, "run")


# -------------------------------------------------------------------------- slow tests


def topics(n: int, length: int, seed: int) -> list[tuple[str, int]]:
    """Texts on one of two topics. Each character is a word of its topic, and a text contains few of the forty words."""
    draw = random.Random(seed)
    words = ["".join(chr(0x4E00 + 64 * topic + i) for i in range(40)) for topic in (0, 1)]
    return [("".join(draw.choices(words[i % 2], k=length)), i % 2) for i in range(n)]


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "steps", "windows"), [("lm", 150, 12), ("mlm", 300, 24)])
def test_pretraining_is_better_than_scratch_with_few_labels(
    objective: str, steps: int, windows: int, train: Train
) -> None:
    """Text without labels tells which words belong together; twelve labelled texts don't show them all.

    mlm is given more, because a step teaches it two tokens of each window and lm all sixteen: with lm's 150
    steps it has found no topics yet, and its start is worse than none (0.62 against 0.75).
    """
    Path("story.txt").write_text("\n".join(text for text, _ in topics(1500, 15, seed=1)), encoding="utf-8")
    write_csv("few.csv", topics(12, 3, seed=2))
    write_csv("val.csv", topics(200, 3, seed=3))
    size = ["trainer=cpu", "callbacks.samples.tokens=0", "logger.tensorboard=false", "model.block_size=16"]
    size += ["model.n_layer=2", "model.n_head=2", "model.n_embd=32"]
    train(
        *size,
        f"objective={objective}",
        "data=text",
        "data.path=story.txt",
        f"trainer.max_steps={steps}",
        f"data.global_batch_size={windows}",
        folder="pre",
    )
    fine = ["objective=classification", "data=labelled", "data.path=few.csv", "data.val_path=val.csv", "trainer=cpu"]
    fine += ["trainer.max_steps=25", "trainer.val_every_steps=25", "optimizer.lr=1e-3", "data.global_batch_size=12"]
    fine += ["logger.tensorboard=false"]
    scratch = [*size, "init_from=null", f"objective.bidirectional={str(objective == 'mlm').lower()}"]
    accuracy: dict[str, list[float]] = {"pre": [], "scratch": []}
    for seed in (1, 2, 3):
        for start, settings in {"pre": ["init_from=pre"], "scratch": scratch}.items():
            result = train(*settings, *fine, f"seed={seed}", folder=f"{start}{seed}")
            accuracy[start].append(result["metrics"]["val/accuracy"])
    assert np.mean(accuracy["pre"]) > np.mean(accuracy["scratch"]) + 0.1


class Beginning:
    """A validation store of which only the first tokens are read."""

    def __init__(self, tokenizer: Tokenizer, text: str) -> None:
        self.tokens = tokenizer.encode(text)

    def __len__(self) -> int:
        return len(self.tokens)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.tokens[start:stop]


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("　　却说曹操引兵追袭袁绍，\n忽闻", ' --prompt "却说曹操引兵追袭袁绍"'),
        ("滚滚长江东逝水浪花淘尽英雄是非成败", ' --prompt "滚滚长江东逝水浪花淘尽英"'),
        ('$(rm -rf /) `ls` "x"', ' --prompt "rm"'),
        ("*** --- !\n", ""),
    ],
)
def test_the_suggested_command_has_a_prompt_from_the_text(text: str, option: str) -> None:
    tokenizer = train_tokenizer(CharConfig(), [text], [text])
    objective = implementation("lm")(LMConfig(), tokenizer, DataFacts())
    command = objective.next_command("latest", SimpleNamespace(val=Beginning(tokenizer, text)))
    assert command == "gptexp generate latest" + option
    for prompt in shlex.split(option)[1:]:
        assert tokenizer.decode(tokenizer.encode(prompt)) == prompt


def test_a_suggested_prompt_has_no_partial_character() -> None:
    tokenizer = train_tokenizer(ByteConfig(), [""], [""])
    half = SimpleNamespace(val=Beginning(tokenizer, "水")).val
    half.tokens = half.tokens[1:]
    command = implementation("lm")(LMConfig(), tokenizer, DataFacts()).next_command("latest", SimpleNamespace(val=half))
    assert command == "gptexp generate latest"
