"""The last layer of a composition that names a length replaces those below it."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.core.config_store import ConfigStore

from gptexp.compose import composition, messages
from gptexp.compose.commandline import checked_command
from gptexp.compose.composition import Bases, compose
from gptexp.compose.registry import groups
from gptexp.util.errors import ConfigError

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "experiment": {
        "by_flops": {"trainer": {"max_flops": 1e12}},
        "by_both": {"trainer": {"max_flops": 1e12, "max_tokens": 100}},
        "by_model": {"model": {"n_layer": 2}},
    },
    "debug": {"by_tokens": {"trainer": {"max_tokens": 100}}, "by_steps": {"trainer": {"max_steps": 7}}},
}


@pytest.fixture
def presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presets of several groups that give lengths, as those of a user may."""
    for group, options in PRESETS.items():
        for name, node in options.items():
            ConfigStore.instance().store(group=group, name=name, node=node, package="_global_")
    known = {group: (*options, *PRESETS.get(group, ())) for group, options in groups().items()}
    for module in (messages, composition):
        monkeypatch.setattr(module, "groups", lambda: known)


@pytest.mark.parametrize(
    ("overrides", "length"),
    [
        ([], {"max_steps": 580}),
        (["experiment=speedrun_cpu"], {"max_steps": 90}),
        (["experiment=speedrun_cpu", "trainer.max_time=5min"], {"max_time": "5min"}),
        (["trainer.max_time=5min", "experiment=speedrun_cpu"], {"max_time": "5min"}),
        (["experiment=by_flops"], {"max_flops": 1e12}),
        (["experiment=by_flops", "trainer.max_steps=3"], {"max_steps": 3}),
        (["experiment=by_flops", "debug=by_tokens"], {"max_tokens": 100}),
        (["experiment=by_flops", "debug=by_steps"], {"max_steps": 7}),
        (["experiment=by_flops", "debug=by_tokens", "trainer.max_tokens=null"], {"max_flops": 1e12}),
        (["experiment=by_model", "debug=by_tokens"], {"max_tokens": 100}),
        (["trainer.max_steps=5", "trainer.max_steps=null", "trainer.max_flops=1e9"], {"max_flops": 1e9}),
    ],
)
def test_the_last_layer_that_names_a_length_wins(presets: None, overrides: list[str], length: dict[str, Any]) -> None:
    assert compose(overrides).trainer.length == length
    assert compose(overrides, bases=Bases()).trainer.length == length


def test_hydra_composes_the_same_length_from_the_checked_command_line(presets: None) -> None:
    arguments, config = checked_command(["experiment=by_flops", "debug=by_tokens"])
    assert config is not None
    assert config.trainer.length == {"max_tokens": 100}
    assert {"trainer.max_steps=null", "trainer.max_flops=null"} < {*arguments}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.max_steps=5", "trainer.max_flops=1e12"], "trainer.max_steps and trainer.max_flops: a run has one"),
        (["experiment=by_both"], "experiment/by_both: trainer.max_tokens and trainer.max_flops: a run has one length"),
        (
            ["experiment=by_flops", "trainer.max_flops=null", "trainer.max_steps=null"],
            "trainer.max_steps=null: the run",
        ),
    ],
)
def test_two_lengths_in_one_layer_and_none_at_all_are_refused(
    presets: None, overrides: list[str], message: str
) -> None:
    for bases in (None, Bases()):
        with pytest.raises(ConfigError) as error:
            compose(overrides, bases=bases)
        assert str(error.value).startswith(message)
