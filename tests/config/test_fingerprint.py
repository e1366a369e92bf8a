"""When two runs have the same configuration."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gptexp.compose.composition import compose, config_from_plain
from gptexp.config.conversion import from_plain, to_plain
from gptexp.config.fingerprint import ADDED, WITHDRAWN, completed, flatten, identity, settings_that_matter
from gptexp.util.errors import ConfigError
from support.run_folders import nested

ACCIDENTS = [
    {"seed": 7},
    {"name": "another"},
    {"resume": "logs/runs/x"},
    {"tokenizer__path": "/elsewhere"},
    {"data__micro_batch_size": 2},
    {"data__num_workers": 3},
    {"trainer__accelerator": "gpu"},
    {"trainer__devices": 8},
    {"trainer__num_nodes": 2},
    {"trainer__strategy": "ddp"},
    {"trainer__compile": True},
    {"trainer__log_every_steps": 1},
    {"trainer__val_every_steps": 50},
    {"callbacks__checkpoint__every_steps": 5},
    {"callbacks__samples__tokens": 0},
    {"logger__tensorboard": False},
    {"paths__logs": "/elsewhere"},
]
CHANGES = [
    {"model__block_size": 128},
    {"model__n_layer": 3},
    {"tokenizer__kind": "byte"},
    {"tokenizer__sha256": "0" * 64},
    {"data__kind": "text"},
    {"data__global_batch_size": 16},
    {"optimizer__lr": 0.002},
    {"schedule__warmup_steps": 5},
    {"trainer__max_steps": 200},
    {"trainer__precision": "bf16-mixed"},
    {"init_from": "logs/runs/x"},
    {"callbacks__plugins__stop": {"_target_": "lightning.pytorch.callbacks.EarlyStopping"}},
]


@pytest.mark.parametrize("change", ACCIDENTS, ids=lambda change: next(iter(change)))
def test_hardware_settings_do_not_change_the_identity(change: dict[str, object]) -> None:
    assert identity(nested(**change)) == identity(nested())


def test_steps_between_validations_matter_with_early_stopping_only() -> None:
    stop = {"callbacks__plugins__stop": {"_target_": "lightning.pytorch.callbacks.EarlyStopping"}}
    trace = {"callbacks__plugins__trace": {"_target_": "gptexp.training.callbacks.trace.Trace", "kill_at": None}}
    assert identity(nested(**stop)) != identity(nested(**stop, trainer__val_every_steps=50))
    assert identity(nested(**trace, trainer__val_every_steps=50)) == identity(nested())


def test_a_missing_key_means_its_schemas_default() -> None:
    whole = completed(nested())
    assert (whole["model"]["qk_norm"], whole["model"]["norm"]) == (False, "layernorm")
    assert (whole["callbacks"]["checkpoint"]["every_minutes"], whole["trainer"]["gradient_clip"]) == (15.0, 1.0)
    assert (whole["objective"], whole["finetune"]) == ({"kind": "lm"}, {"kind": "full"})
    assert completed(whole) == whole
    plain = to_plain(compose(["callbacks=early_stopping", "data=harrypotter"]))
    assert completed(plain) == plain
    del plain["data"]["path"]  # depends on paths.data, so its default is not a value
    assert "path" not in completed(plain)["data"]
    assert completed({"model": {"kind": "of another program"}})["model"] == {"kind": "of another program"}


def test_a_removed_key_is_dropped_and_leaves_the_identity_unchanged() -> None:
    settings = to_plain(compose([]))
    older = {**settings, "data": {**settings["data"], "block_size": 128}}
    assert completed(older) == completed(settings) == settings
    assert identity(older) == identity(settings)
    assert config_from_plain(older) == config_from_plain(settings)
    assert from_plain("data", older["data"]) == from_plain("data", settings["data"])
    with pytest.raises(ConfigError, match="blok_size"):
        from_plain("data", {**settings["data"], "blok_size": 128})


def test_the_former_path_of_a_plug_in_class_means_the_present_one() -> None:
    present = {"trace": {"_target_": "gptexp.training.callbacks.trace.Trace", "kill_at": 3}, "off": None}
    former = {**present, "trace": {**present["trace"], "_target_": "gptexp.callbacks.trace.Trace"}}  # type: ignore[dict-item]
    settings = to_plain(compose([]))
    settings["callbacks"]["plugins"] = present
    older = {**settings, "callbacks": {**settings["callbacks"], "plugins": former}}
    assert completed(older) == settings
    assert identity(completed(older)) == identity(settings)
    assert config_from_plain(older) == config_from_plain(settings)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_settings_that_change_the_curve_change_the_identity(change: dict[str, object]) -> None:
    assert identity(nested(**change)) != identity(nested())


@pytest.mark.parametrize("setting", sorted(ADDED.keys() - WITHDRAWN))
def test_an_added_setting_changes_the_identity_only_when_it_is_used(setting: str) -> None:
    group, name = setting.split(".")
    settings = to_plain(compose(["optimizer=muon"] if group == "optimizer" else []))
    older = {**settings, group: {key: value for key, value in settings[group].items() if key != name}}
    assert settings[group][name] == completed(older)[group][name] == ADDED[setting]
    assert identity(older) == identity(settings)
    assert identity({**settings, group: {**settings[group], name: "used"}}) != identity(settings)


def test_the_seed_is_part_of_the_identity_only_on_request() -> None:
    assert identity(nested(seed=2), seed=True) != identity(nested(seed=1), seed=True)
    assert identity(nested(seed=1), seed=True) == identity(nested(), seed=True)


def test_the_identity_is_short_and_independent_of_key_order() -> None:
    settings = nested()
    assert identity(dict(reversed(settings.items()))) == identity(settings)
    assert len(identity(settings)) == 8
    assert flatten({"a": {"b": {"c": 1}}, "d": []}) == {"a.b.c": 1, "d": []}


def test_an_ignored_setting_can_be_included_on_request() -> None:
    assert "trainer.compile" not in settings_that_matter(nested())
    assert settings_that_matter(nested(), also=["trainer.compile"])["trainer.compile"] is False


def test_every_setting_is_classified_for_the_identity() -> None:
    """All names in the list of ignored settings exist. A renamed setting would silently be compared."""
    from gptexp.config.fingerprint import ACCIDENTAL

    assert set(flatten(to_plain(compose([])))) >= ACCIDENTAL - {"tokenizer.path"}  # only tokenizer=files has it


def test_the_identity_does_not_need_torch() -> None:
    code = "import sys, gptexp.config.fingerprint; sys.exit('torch' in sys.modules or 'hydra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_withdrawn_settings_are_dropped_only_at_the_value_that_changes_nothing() -> None:
    stored = to_plain(compose(["model=mini_gpt"]))
    old = {**stored, "model": {**stored["model"], "logit_softcap": None}}
    other = {**stored, "model": {**stored["model"], "logit_softcap": 15.0}}
    assert completed(old) == completed(stored)
    assert identity(old) == identity(stored)
    assert completed(other)["model"]["logit_softcap"] == 15.0
    assert identity(other) != identity(stored)
