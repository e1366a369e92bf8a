"""A token in the environment is read when a plug-in is created, and no file of a run contains it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptexp.compose.composition import compose, config_from_plain
from gptexp.config.conversion import to_plain
from gptexp.runs.finding import stored_settings
from gptexp.runs.opening import load
from gptexp.training.plugins import load_plugins
from gptexp.util.errors import ConfigError
from support.runs import TINY, TINY_GPT

SECRET = "secret-8d1f"
TRACE = "gptexp.training.callbacks.trace.Trace"
NAMED = f"+callbacks.plugins.trace={{_target_: {TRACE}, kill_at: '${{oc.env:WHEN}}', more: ['a ${{oc.env:WHEN}}']}}"


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHEN", SECRET)


def test_a_variable_named_by_a_plug_in_stays_unresolved_in_settings() -> None:
    plain = to_plain(config := compose([*TINY, "data.path=story.txt", NAMED]))
    assert SECRET not in str(plain)
    assert config.callbacks.plugins["trace"]["kill_at"] == "${oc.env:WHEN}"
    assert config_from_plain(plain) == config  # the way in which a job of a sweep and another rank read it


def test_a_plug_in_receives_the_value_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(TRACE, lambda **arguments: given.update(arguments))
    named = {"_target_": TRACE, "kill_at": "${oc.env:WHEN}", "more": ["a ${oc.env:WHEN}", 3]}
    load_plugins("callbacks", {"trace": named})
    assert given == {"kill_at": SECRET, "more": [f"a {SECRET}", 3]}


def test_an_unset_variable_gives_a_one_line_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="NOT_SET"):
        compose([*TINY, "data.path=story.txt", NAMED.replace("WHEN", "NOT_SET")])
    with pytest.raises(ValueError, match=r"callbacks\.plugins\.trace: .*NOT_SET"):
        load_plugins("callbacks", {"trace": {"_target_": TRACE, "kill_at": "${oc.env:NOT_SET}"}})


def test_a_variable_mixed_with_an_interpolation_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"callbacks\.plugins\.trace\.kill_at=.*write its value"):
        compose([*TINY, "data.path=story.txt", NAMED.replace("'${oc.env:WHEN}'", "'${oc.env:WHEN}${name}'")])


def test_no_file_of_a_run_contains_the_token(
    train_here: Callable[..., dict[str, Any]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptexp.training.build.load_plugins", lambda *_: {})
    train_here(*TINY_GPT, NAMED)
    for path in (workplace / "run").rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path
    assert stored_settings("run")["callbacks"]["plugins"]["trace"]["kill_at"] == "${oc.env:WHEN}"
    stored = load(workplace / "run/checkpoints/last.ckpt").config
    assert not {"callbacks", "logger"} & stored.keys()


@pytest.mark.parametrize("group", ["callbacks", "logger"])
@pytest.mark.parametrize("value", ["${oc.decode:x}", "${oc.env:${name}}", "${name}"])
def test_stored_settings_can_name_nothing_else(group: str, value: str) -> None:
    plain = to_plain(compose([*TINY, "data.path=story.txt"]))
    plain[group]["plugins"] = {"x": {"a": value}}
    with pytest.raises(ConfigError, match="plain values"):
        config_from_plain(plain)
    plain[group]["plugins"] = {}
    plain["name"] = "${oc.env:WHEN}"
    with pytest.raises(ConfigError, match="plain values"):
        config_from_plain(plain)
