"""Processes killed at any time: files stay complete, and a run resumes to the same result."""

from __future__ import annotations

import io
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gptexp.compose.composition import compose
from gptexp.models.build import build_model
from gptexp.runs import checkpoint as ckpt
from gptexp.runs.opening import load
from gptexp.util import files
from support import child_processes
from support.checkpoints import small_checkpoint
from support.runs import TINY, TINY_GPT, command

Train = Callable[..., dict[str, Any]]


def in_child(work: Callable[[], None]) -> int:
    """Do the work in a forked process and return its exit code, which is negative after a signal."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# ------------------------------------------------------------------------------ at every operation


class Deadly:
    """A file layer that kills the process at its n-th operation: before it, or a write after half its bytes."""

    def __init__(self, n: int) -> None:
        self.left = n

    def strike(self) -> bool:
        self.left -= 1
        return self.left == 0

    def patch(self) -> None:
        """Install it in this process permanently."""
        deadly = self

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                if deadly.strike():
                    super().write(memoryview(data).cast("B")[: len(data) // 2])
                    die()
                return super().write(data)

        for module in (files, ckpt):
            vars(module)["open_new"] = lambda path: File(path, "wb")
        for name in ("fsync", "replace", "rename", "link", "unlink"):
            setattr(os, name, self._deadly(getattr(os, name)))

    def _deadly(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            if self.strike():
                die()
            return operation(*arguments, **named)

        return run


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_save_killed_at_any_write_leaves_two_valid_checkpoints(tmp_path: Path) -> None:
    for step in (1, 2):
        ckpt.rotate(small_checkpoint(step), tmp_path, best=step == 1)
    third, operations, reached = small_checkpoint(3), 0, set()
    while True:
        operations += 1

        def save(n: int = operations) -> None:
            Deadly(n).patch()
            ckpt.rotate(third, tmp_path, best=True)

        code = in_child(save)
        steps = [load(tmp_path / name).step for name in ("last.ckpt", "previous.ckpt", "best.ckpt")]
        reached.add(tuple(steps))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert steps[0] in (2, 3)
        assert steps[1] in (1, 2)
        assert steps[2] in (1, 3)
        if steps[0] == 3:  # start again from the second step
            for step in (1, 2):
                ckpt.rotate(small_checkpoint(step), tmp_path, best=step == 1)
    assert operations > 30
    assert {(2, 1, 1), (2, 1, 3), (3, 1, 3), (3, 2, 3)} <= reached
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]


# ------------------------------------------------------------------------------ at random times

RUN = [
    *TINY, *TINY_GPT, "data.path=story.txt", "resume=auto", "name=run", "model.dropout=0.1", "trainer.max_steps=24",
    "trainer.val_every_steps=4", "callbacks.checkpoint.every_steps=1",
]  # fmt: skip


def train_auto(place: str) -> None:
    """Start the run in `place` with the same command line as every time."""
    from gptexp.compose.composition import compose
    from gptexp.training.experiment import run_experiment as run_job

    os.chdir(place)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    run_job(compose(RUN), Path("logs/runs/run/auto"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [20, *(pytest.param(seed, marks=pytest.mark.weekly) for seed in (21, 22, 23))])
def test_a_run_killed_at_eight_random_times_ends_bitwise_identical(
    workplace: Path, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    def start(place: Path) -> Any:
        process = child_processes.server().Process(target=train_auto, args=(str(place),))
        process.start()
        return process

    def finish(place: Path) -> ckpt.Checkpoint:
        process = start(place)
        process.join()
        assert process.exitcode == 0
        return load(place / "logs/runs/run/auto/checkpoints/last.ckpt")

    def logged(place: Path) -> int:
        metrics = place / "logs/runs/run/auto/metrics.csv"
        return metrics.read_text().count("\n") if metrics.exists() else 0

    expected = finish(workplace)
    draw = random.Random(seed)
    steps = set()
    for moment in range(8):
        place = tmp_path_factory.mktemp(f"kill{moment}")
        (place / "story.txt").write_bytes((workplace / "story.txt").read_bytes())
        process = start(place)
        lines = draw.randrange(25)  # counted and not timed, so that the times are also spread on a busy machine
        while process.is_alive() and logged(place) < lines:
            time.sleep(0.002)
        process.join(timeout=draw.uniform(0, 0.1 if lines else 2))
        process.kill()
        process.join()
        folder = place / "logs/runs/run/auto"
        saved = folder / "checkpoints/last.ckpt"
        steps.add(load(saved).step if saved.exists() else 0)
        if (folder / "result.json").exists():
            continue  # it was complete
        last = finish(place)
        assert all(torch.equal(value, last.model[name]) for name, value in expected.model.items())
        for name, state in expected.optimizer.items():
            assert all(torch.equal(value, last.optimizer[name][key]) for key, value in state.items())
        assert {**last.metrics, "seconds": 0} == {**expected.metrics, "seconds": 0}
        assert [row.split(",")[0] for row in (folder / "metrics.csv").read_text().splitlines()[1:]] == [
            str(step) for step in range(1, 25)
        ]
    assert len(steps) > 3  # the times were spread over the run


# -------------------------------------------------------------------------------- a full disk


def test_a_full_disk_names_the_file_and_keeps_the_last_checkpoint(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ckpt.rotate(small_checkpoint(1), tmp_path, best=True)

    def save() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        ckpt.rotate(small_checkpoint(2), tmp_path, best=True)

    assert in_child(save) == 1
    reported = capfd.readouterr().err
    assert "DiskFullError" in reported
    assert f"{tmp_path}/last.ckpt: the disk is full; the file needs " in reported
    assert " bytes, " in reported
    assert [load(tmp_path / name).step for name in ("last.ckpt", "best.ckpt")] == [1, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]


# ------------------------------------------------------------------------------ nonfinite values


def test_a_nonfinite_loss_writes_a_bundle_that_names_the_module(
    train_here: Train, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gptexp.replay import main

    advice = r"replay run/nonfinite-step-2\.pt` repeats that step.* trainer\.gradient_clip=null, or"
    with pytest.raises(ValueError, match=advice):
        train_here(*TINY_GPT, "optimizer.lr=1e22", "trainer.gradient_clip=null", "trainer.max_steps=20")
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["run/nonfinite-step-2.pt"])
    first, second = capsys.readouterr().out.splitlines()
    assert stop.value.code == 0
    assert first == "train/loss is nan at step 2 · seed 1 · precision 32-true"
    assert second.startswith("micro-batch 0 of rank 0: transformer.h.0.ln_1 (LayerNorm)")
    assert " is the first module with an output that is not finite: " in second


def test_a_replay_of_a_healthy_step_finds_nothing(
    train_here: Train, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gptexp.commands.replay import read_bundle, replay
    from gptexp.replay import main

    with pytest.raises(ValueError, match="nonfinite-step-2"):
        train_here(*TINY_GPT, "optimizer.lr=1e22", "trainer.gradient_clip=null", "trainer.max_steps=20")
    plain = read_bundle(Path("run/nonfinite-step-2.pt"))
    for tensor in plain["model"].values():
        tensor.clamp_(-0.1, 0.1)
    assert replay(plain) is None
    plain["model"]["transformer.ln_f.weight"].fill_(1e37)
    plain["model"]["transformer.wte.weight"].mul_(1000)
    assert "lm_head (Linear) is the first module with an output that is not finite" in str(replay(plain))
    torch.save({"format": "other"}, "other.pt")
    with pytest.raises(SystemExit) as stop:
        main(["other.pt"])
    assert stop.value.code == 2
    assert "other.pt: not a bundle of gptexp in format" in capsys.readouterr().err


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_asynchronous_device_keeps_the_weights_before_the_bad_step(optimizer: str) -> None:
    """Use the code path of GPUs with CPU tensors: optimizers skip steps for which `found_inf` is set."""
    from gptexp.training.nonfinite import NonFiniteLoss, Watch
    from gptexp.training.optimizers import build_optimizer

    config = compose([*TINY_GPT, f"optimizer={optimizer}", "tokenizer=byte"])
    watched, other = (build_model(config.model, 257, seed=1) for _ in range(2))
    steps = [build_optimizer(model, config.optimizer, 0.1) for model in (watched, other)]
    watch = Watch(waits=False)
    for step, norm in enumerate([1.0, float("nan"), 1.0], start=1):
        for parameter in (*watched.parameters(), *other.parameters()):
            parameter.grad = torch.full_like(parameter, norm)
        watch.step(steps[0], torch.tensor(norm), torch.tensor(2.0), step)
        steps[0].step()
        if step == 1:
            steps[1].step()  # this optimizer is not watched
    for mine, theirs in zip(watched.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(NonFiniteLoss, match="at step 2") as error:
        watch.look()
    assert (error.value.step, error.value.before_update) == (2, True)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_all_ranks_stop_at_the_step_with_a_nonfinite_gradient(workplace: Path) -> None:
    from gptexp.training.callbacks.trace import read_trace

    settings = [*TINY, *TINY_GPT, "data.path=story.txt", "optimizer.lr=1e22", "trainer.gradient_clip=null"]
    settings += ["+callbacks.plugins.trace={_target_: gptexp.training.callbacks.trace.Trace}", "trainer.max_steps=20"]
    for strategy in ("ddp", "fsdp"):
        layout = [f"trainer={strategy}", "trainer.accelerator=cpu", "trainer.devices=2", f"hydra.run.dir={strategy}"]
        done = command("train", *settings, *layout, cwd=workplace, quick=True)
        assert done.returncode == 2
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert "grad_norm is nan at step 2" in errors[0]
        assert f"`gptexp replay {strategy}/nonfinite-step-2.pt` repeats that step" in errors[0]
        assert list((workplace / strategy).glob(".*.tmp")) == []
        assert {(rank, step) for rank, step, _ in read_trace(workplace / strategy)} == {(0, 1), (1, 1)}
        replayed = command("replay", f"{strategy}/nonfinite-step-2.pt", cwd=workplace)
        assert "is the first module with an output that is not finite" in replayed.stdout


# ---------------------------------------------------------------------------------- untrusted files


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("model", {"kind": "gpt", "_target_": "os.system", "command": "touch owned"}),
        ("model", {"_target_": "os.system", "command": "touch owned"}),
        ("model", {"kind": "gpt", "n_embd": "${oc.env:HOME}"}),
    ],
)
def test_untrusted_settings_cannot_name_code(tmp_path: Path, part: str, value: Any) -> None:
    from gptexp.objectives.loading import load_model

    ckpt.save(small_checkpoint(config={part: value}), tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"_target_|not a group of settings|plain values"):
        load_model(load(tmp_path / "a.ckpt"), "a.ckpt")


def test_an_untrusted_run_folder_cannot_name_code_to_execute(train_here: Train, workplace: Path) -> None:
    import yaml

    train_here(*TINY_GPT)
    path = workplace / "run/config.yaml"
    (workplace / "run/result.json").unlink()
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    loading = {"_target_": "lightning.pytorch.LightningModule.load_from_checkpoint", "weights_only": False}
    settings["callbacks"]["plugins"] = {"x": {**loading, "checkpoint_path": "evil.ckpt"}}
    settings["trainer"]["_target_"] = "os.system"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    done = command("train", "resume=run", "trainer.max_steps=3", "trainer=cpu", cwd=workplace)
    assert done.returncode == 2
    assert "trainer._target_" in done.stderr
    del settings["trainer"]["_target_"]
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    done = command("train", "resume=run", "trainer.max_steps=3", "trainer=cpu", cwd=workplace)
    assert done.returncode == 2
    assert "callbacks.plugins.x._target_=lightning.pytorch.LightningModule.load_from_checkpoint" in done.stderr
