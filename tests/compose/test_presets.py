"""Presets of the user's own folder, given by --config-dir."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support import child_processes

TINY = "# a tiny model of this project\ndefaults:\n  - mini_gpt\n  - _self_\nn_layer: 1\nn_embd: 16\nn_head: 2\n"
WIDTHS = "# @package _global_\n# Widths\nhydra:\n  sweeper:\n    params:\n      model.n_embd: 8,16\n"
FAST = ["data=text", "data.path=story.txt", "trainer=cpu", "debug=smoke"]


@pytest.fixture
def folder(workplace: Path) -> Path:
    """A current directory with presets below mine/."""
    for name, text in {"model/tiny": TINY, "sweep/widths": WIDTHS}.items():
        (workplace / f"mine/{name}.yaml").parent.mkdir(parents=True)
        (workplace / f"mine/{name}.yaml").write_text(text, encoding="utf-8")
    return workplace


def train(folder: Path, *arguments: str) -> child_processes.Done:
    return child_processes.run("gptexp.train", "--config-dir", "mine", *arguments, cwd=folder)


def test_help_and_messages_know_the_presets_of_config_dir(folder: Path) -> None:
    assert "\n  tiny                  a tiny model of this project\n" in train(folder, "--help").out
    assert "model.n_embd=16 " in train(folder, "--help", "model=tiny").out
    assert train(folder, "model=tinny").err == "error: model=tinny: no such option; did you mean tiny?\n"
    assert "n_layer: 1\n" in train(folder, "model=tiny", "--cfg", "job").out
    done = child_processes.run("gptexp", "--complete", "train", "--config-dir=mine", "model=ti", cwd=folder)
    assert done.out == "model=tiny\n"


def test_a_preset_with_a_name_of_gptexp_is_refused(folder: Path) -> None:
    path = folder / "mine/model/mini_gpt.yaml"
    path.write_text(TINY, encoding="utf-8")
    done = train(folder, "model=tiny")
    assert (done.code, done.err) == (
        2,
        f"error: model=mini_gpt: --config-dir={path.parents[1]} and gptexp have a preset of this name; "
        f"rename {path}, or uninstall one of them\n",
    )


def test_a_missing_folder_is_named(folder: Path) -> None:
    done = child_processes.run("gptexp.train", "--config-dir=yours", cwd=folder)
    remedy = "no such folder; give one with presets, such as DIR/model/mine.yaml"
    assert (done.code, done.err) == (2, f"error: --config-dir=yours: {remedy}\n")


def test_runs_and_sweeps_use_the_presets_of_config_dir(folder: Path) -> None:
    done = train(folder, "model=tiny", *FAST, "hydra.run.dir=run")
    assert done.code == 0, done.err
    resumed = child_processes.run("gptexp.train", "resume=run", "trainer.max_steps=4", cwd=folder)
    assert resumed.code == 0, resumed.err
    assert train(folder, "-m", "sweep=widths", "model=glob(ti*)", *FAST, "dry_run=true").code == 0
    done = train(folder, "-m", "sweep=widths", "model=tiny", *FAST, "sweep.name=widths")
    assert done.code == 0, done.err
    assert sorted(path.name for path in (folder / "logs/sweeps/widths").glob("n_embd=*")) == ["n_embd=16", "n_embd=8"]


@pytest.mark.slow
def test_child_processes_of_a_sweep_compose_with_the_presets(folder: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    cores = ["hydra/launcher=cores", "hydra.launcher.n_jobs=2", "sweep.name=widths"]
    line = ["-m", "gptexp", "train", "-m", "--config-dir", "mine", "sweep=widths", "model=tiny", *FAST, *cores]
    done = subprocess.run([sys.executable, *line], cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
