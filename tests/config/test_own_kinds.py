"""Own optimizers and schedules, and files that record a package that isn't installed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from gptexp.compose.composition import compose
from gptexp.config import KINDS, OptimizerConfig, ScheduleConfig
from gptexp.config.conversion import to_plain
from gptexp.config.schedule import lr_multiplier
from gptexp.objectives.loading import load_trained
from gptexp.runs import checkpoint as ckpt
from gptexp.runs import history
from gptexp.runs.finding import stored_settings
from gptexp.training.optimizer_state import load_named_optimizer_state, named_optimizer_state
from gptexp.training.optimizers import Parameters, build_optimizer
from gptexp.util.errors import ConfigError, RunError
from gptexp.util.yaml_files import write_yaml


@dataclass(kw_only=True, slots=True)
class MomentumConfig(OptimizerConfig):
    implementation: ClassVar[str] = f"{__name__}:momentum"
    kind: str = "momentum"
    decay: float = 0.9


def momentum(parameters: Parameters, config: MomentumConfig, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([parameter for _, parameter in parameters.named], lr=lr, momentum=config.decay)


@dataclass(kw_only=True, slots=True)
class HalvingConfig(ScheduleConfig):
    kind: str = "halving"
    every: int = 10

    def after_warmup(self, step: int, warmup: int, max_steps: int) -> float:
        return 0.5 ** ((step - warmup) // self.every)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS["optimizer"], "momentum", MomentumConfig)
    monkeypatch.setitem(KINDS["schedule"], "halving", HalvingConfig)


def test_an_own_schedule_follows_the_warm_up() -> None:
    rates = [lr_multiplier(HalvingConfig(warmup_steps=3, every=2), 100, step) for step in range(9)]
    assert rates == [0.25, 0.5, 0.75, 1, 1, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("factor", [-0.1, float("nan"), float("inf")])
def test_a_factor_that_is_no_rate_is_refused(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    monkeypatch.setattr(HalvingConfig, "after_warmup", lambda *_: factor)
    with pytest.raises(ValueError, match=f"schedule=halving: its factor at step 7 is {factor}"):
        lr_multiplier(HalvingConfig(warmup_steps=0), 100, 7)


def test_the_state_of_an_own_optimizer_is_saved_and_loaded() -> None:
    models = [nn.Linear(3, 2) for _ in range(2)]
    first, second = (build_optimizer(model, MomentumConfig(), lr=0.5) for model in models)
    assert [group["peak_lr"] for group in first.param_groups] == [0.5]
    models[0](torch.ones(1, 3)).sum().backward()
    first.step()
    state = named_optimizer_state(models[0], first)
    assert {name: list(part) for name, part in state.items()} == {
        name: ["momentum_buffer"] for name in ("weight", "bias")
    }
    load_named_optimizer_state(models[1], second, state)
    assert torch.equal(second.state[models[1].weight]["momentum_buffer"], torch.ones(2, 3))


def stored(**packages: str) -> ckpt.Checkpoint:
    config = to_plain(compose(["model=bigram"]))
    config["model"] = {"kind": "mylab_gru"}
    parts = {"model": {}, "optimizer": {}, "tokenizer": {"kind": "byte"}, "data": {}, "metrics": {}}
    return ckpt.Checkpoint(step=1, config=config, packages=packages, **parts)  # type: ignore[arg-type]


def test_a_checkpoint_names_the_package_that_is_not_installed() -> None:
    message = "run: model.kind=mylab_gru: comes from the package mylab 0.1.0, which is not installed"
    with pytest.raises(ConfigError, match=message):
        load_trained(stored(model="mylab 0.1.0"), "run")
    with pytest.raises(ConfigError, match=r"model.kind=mylab_gru: unknown; choose one of bigram"):
        load_trained(stored(), "run")
    with pytest.raises(ConfigError, match=r"model.kind=mylab_gru: unknown; choose one of bigram"):
        load_trained(stored(model="run this: pip install x"), "run")  # not a name and a version


def test_packages_of_a_checkpoint_are_stored_as_plain_data(tmp_path: Path) -> None:
    metrics = {"last": None, "best": None, "seconds": 0.0, "sums": None}
    made = stored(model="mylab 0.1.0")
    made.metrics, made.model = metrics, {"w": torch.zeros(1)}
    ckpt.save(made, tmp_path / "a.ckpt")
    from gptexp.runs.opening import load

    assert load(tmp_path / "a.ckpt").packages == {"model": "mylab 0.1.0"}


def test_a_run_folder_names_the_package_that_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").touch()
    write_yaml(tmp_path / "config.yaml", stored().config)
    (tmp_path / "provenance.json").write_text('{"packages": {"model": "mylab 0.1.0"}}')
    with pytest.raises((ConfigError, RunError), match=r"comes from the package mylab 0.1.0, which is not installed"):
        stored_settings(str(tmp_path))


def test_an_unknown_schedule_in_a_history_can_be_compared() -> None:
    part = {**history.segment(compose(["model=bigram"]), 580, 0, 20, "a"), "schedule": {"kind": "not_installed"}}
    assert history.checked([part]) == [part]
    assert history.extension([part, {**part, "from": 20, "to": 30}]) is None  # type: ignore[list-item, typeddict-item]
    longer = {**part, "from": 20, "to": 30, "max_steps": 900}
    assert history.extension([part, longer]) == "at step 20 of 580"  # type: ignore[list-item]
