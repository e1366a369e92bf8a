"""`gptexp diverge`: the step, the tensor and the module at which two runs part."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gptexp
from gptexp.commands.diverge import main
from gptexp.compose.composition import compose
from gptexp.runs.digests import read_digests
from gptexp.training.experiment import run_experiment
from support.runs import TINY, TINY_GPT

SETTINGS = [
    *TINY,
    *TINY_GPT,
    "data.path=story.txt",
    "logger.tensorboard=false",
    "model.n_layer=2",
    "optimizer=adamw",
    "trainer.max_steps=6",
    "trainer.digests=true",
]


@pytest.fixture
def train(workplace: Path) -> Callable[..., Path]:
    def run(folder: str, *overrides: str) -> Path:
        run_experiment(compose([*SETTINGS, *overrides]), Path(folder))
        return Path(folder)

    return run


def code_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_two_equal_runs_agree_in_all_tensors(train: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    for folder in "ab":
        train(folder)
    assert code_of("a", "b") == 0
    out = capsys.readouterr().out
    assert "settings, code, versions and machine are the same" in out
    assert "the runs agree: all tensors of 7 logged steps are bitwise equal" in out  # with the initial weights


def test_digests_name_windows_weights_gradients_and_optimizer(train: Callable[..., Path]) -> None:
    first, *others = read_digests(train("a"))
    assert (first.step, [found.step for found in others]) == (0, [1, 2, 3, 4, 5, 6])
    assert set(first.tensors) == {name for name in others[0].tensors if name.startswith("parameter ")}
    names = list(others[0].tensors)
    assert names[:4] == ["windows", "lr", "train/loss", "gradient of transformer.wte.weight"]
    assert "exp_avg_sq of transformer.h.1.mlp.c_fc.weight in the optimizer" in names
    assert len({found.tensors["windows"] for found in others}) == 6
    size = (Path("a") / "digests.jsonl").stat().st_size
    assert size < 16 * (len(names) + 20) * 6 + 2 * sum(len(name) + 6 for name in names)


def test_digests_change_no_number_of_a_run(train: Callable[..., Path]) -> None:
    results = [
        json.loads((train(f"d{on}", f"trainer.digests={on}", "model.dropout=0.1") / "result.json").read_text())
        for on in ("true", "false")
    ]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert not Path("dfalse/digests.jsonl").exists()


def test_digests_are_equal_after_a_resume(train: Callable[..., Path]) -> None:
    train("whole")
    train("killed", "trainer.val_every_steps=3")
    Path("killed/result.json").unlink()  # killed after step 6, with a checkpoint of step 3
    Path("killed/checkpoints/last.ckpt").unlink()
    with Path("killed/digests.jsonl").open("a") as file:
        file.write('{"step": 7, "dig')
    run_experiment(compose(["resume=killed", "trainer=cpu"]), Path("killed"))
    assert read_digests(Path("killed")) == read_digests(Path("whole"))
    run_experiment(compose(["resume=whole", "trainer=cpu", "trainer.max_steps=8"]), Path("longer"))
    assert [found.step for found in read_digests(Path("longer"))] == [7, 8]


def test_digests_do_not_depend_on_accumulation_of_equal_windows(train: Callable[..., Path]) -> None:
    one, two = (read_digests(train(f"m{n}", f"data.micro_batch_size={n}")) for n in (4, 2))
    assert one[1].tensors["windows"] == two[1].tensors["windows"]


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("seed=2", "before the first step: parameter transformer.wte.weight differs"),
        ("data.global_batch_size=5", "at step 1: windows differs"),
        ("schedule.warmup_steps=3", "at step 1: lr differs"),
    ],
)
def test_another_seed_batch_or_rate_is_named_without_a_replay(
    train: Callable[..., Path], capsys: pytest.CaptureFixture[str], override: str, place: str
) -> None:
    train("a", "schedule.warmup_steps=1")
    train("b", "schedule.warmup_steps=1", override)
    capsys.readouterr()
    assert code_of("a", "b") == 1
    out = capsys.readouterr().out
    key, _, value = override.partition("=")
    assert f"setting {key}: " in out
    assert f" in A, {value} in B" in out
    assert f"the runs part {place}" in out
    assert "replaying" not in out


@pytest.mark.slow
def test_another_optimizer_setting_is_named_by_the_replay(
    train: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    train("a", "trainer.log_every_steps=3")
    train("b", "trainer.log_every_steps=3", "optimizer.beta2=0.951")
    assert code_of("a", "b") == 1
    out = capsys.readouterr().out
    assert "setting optimizer.beta2: 0.95 in A, 0.951 in B" in out
    assert "step 1: the first difference is the " in out
    assert "exp_avg_sq of" in out or "parameter " in out


PLANTED = """
_made = GPT.__init__

def _planted(self, *args, **options):
    _made(self, *args, **options)
    self.transformer.h[1].ln_2.eps = 3e-5

GPT.__init__ = _planted
"""


def with_planted_epsilon(place: Path) -> Path:
    """The code of gptexp in which the second layer's ln_2 has another epsilon."""
    copied = place / "other" / "src" / "gptexp"
    source = Path(gptexp.__file__).parent
    shutil.copytree(source.parents[1] / "conf", place / "other" / "conf")
    shutil.copytree(source, copied, ignore=shutil.ignore_patterns("__pycache__"))
    with (copied / "models" / "gpt.py").open("a", encoding="utf-8") as model:
        model.write(PLANTED)
    return copied.parent


@pytest.mark.slow
def test_a_planted_epsilon_of_one_layer_is_named(
    train: Callable[..., Path], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("a", "trainer.log_every_steps=5")
    code = with_planted_epsilon(workplace)
    given = dict(setting.split("=", 1) for setting in [*SETTINGS, "trainer.log_every_steps=5", "hydra.run.dir=b"])
    settings = [f"{key}={value}" for key, value in given.items()]
    environment = {**os.environ, "PYTHONPATH": str(code)}
    command = [sys.executable, "-m", "gptexp.train", *settings]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert code_of("a", "b", "--code-b", str(code)) == 1
    out = capsys.readouterr().out
    assert "code: " in out
    assert "the runs part at step 1: train/loss differs" in out
    assert "step 1: the first difference is the output of transformer.h.1.ln_2 (LayerNorm): for example " in out
    assert code_of("a", "b") == 1
    assert "the replays of both runs agree: the difference comes from what a replay does not repeat" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["a", "nothing"], "nothing: no run in it"),
        (["a", "plain"], "plain: has no digests; train with trainer.digests=true"),
        (["a", "damaged"], "digests.jsonl: damaged"),
        (["a", "later"], "digests.jsonl: not a file of digests that this version of gptexp reads"),
        (["a", "a", "--code-b", "."], "--code-b=.: has no gptexp in it; give the src folder of a checkout"),
        (["a"], "RUN_B"),
    ],
)
def test_a_wrong_use_is_one_line(
    workplace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], error: str
) -> None:
    head = '{"format": "gptexp digests", "version": 1}\n'
    contents = {
        "a": head + '{"step": 1, "tensors": ["lr"], "digests": "0123456789abcdef"}\n',
        "damaged": head + '{"step": 1, "tensors": ["lr"], "digests": "0123"}\n',
        "later": head.replace("1", "2"),
        "plain": None,
    }
    for name, content in contents.items():
        Path(name).mkdir()
        (Path(name) / "config.yaml").write_text("model: {kind: gpt}\n")
        if content is not None:
            (Path(name) / "digests.jsonl").write_text(content)
    assert code_of(*arguments) == 2
    found = capsys.readouterr().err
    assert error in found
    assert found.count("\n") == 1


def test_a_replay_of_settings_from_a_stranger_needs_trust(
    train: Callable[..., Path], capsys: pytest.CaptureFixture[str], quick_ranks: None
) -> None:
    train("a")
    train("b", "optimizer.beta2=0.951")
    settings = Path("b/config.yaml").read_text().replace("story.txt", "/etc/passwd")
    Path("b/config.yaml").write_text(settings)
    assert code_of("a", "b") == 2
    found = capsys.readouterr().err
    assert "b: can't be replayed: b: its settings name data.kind=text data.path=/etc/passwd; if you trust" in found


@pytest.mark.slow
def test_digests_of_two_ddp_processes_have_the_same_windows(train: Callable[..., Path], quick_ranks: None) -> None:
    one = read_digests(train("one"))
    two = read_digests(train("two", "trainer.devices=2", "trainer.strategy=ddp"))
    assert [found.step for found in one] == [found.step for found in two]
    assert [f.tensors.get("windows") for f in one] == [f.tensors.get("windows") for f in two]
    assert one[0] == two[0]


def test_runs_of_different_logged_steps_are_refused(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, step in (("a", 1), ("b", 2)):
        Path(name).mkdir()
        (Path(name) / "config.yaml").write_text("model: {kind: gpt}\n")
        line: dict[str, Any] = {"step": step, "tensors": ["lr"], "digests": "0123456789abcdef"}
        head = '{"format": "gptexp digests", "version": 1}\n'
        (Path(name) / "digests.jsonl").write_text(head + json.dumps(line) + "\n")
    assert code_of("a", "b") == 2
    assert "use the same trainer.log_every_steps" in capsys.readouterr().err


def test_digests_are_refused_with_sharded_tensors() -> None:
    with pytest.raises(ValueError, match=r"trainer\.digests=true: not supported with trainer\.strategy=fsdp"):
        compose([*TINY, "data.path=x", "trainer.digests=true", "trainer.strategy=fsdp"])
