"""The settings that give the length of a run: their forms, and that a run has one."""

from __future__ import annotations

import pytest

from gptexp.compose.composition import compose, config_from_plain
from gptexp.config.conversion import to_plain
from gptexp.config.fingerprint import completed, identity
from gptexp.config.length import seconds_of
from gptexp.util.errors import ConfigError


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("30s", 30),
        ("5min", 300),
        ("5m", 300),
        ("1h30m", 5400),
        ("1h 30min", 5400),
        ("1.5h", 5400),
        ("2d", 172_800),
        ("1m0.5s", 60.5),
    ],
)
def test_a_duration_is_read_in_the_forms_of_the_documentation(duration: str, seconds: float) -> None:
    assert seconds_of(duration) == seconds


@pytest.mark.parametrize("duration", ["60", "5 minutes", "", "-5min", "30s5min", "0s", "0.5s", "nan", "1e3s", "１h"])
def test_another_form_of_a_duration_is_refused_with_examples(duration: str) -> None:
    with pytest.raises(ValueError, match=f"trainer.max_time={duration}: must be a duration .* 30s, 5min or 1h30m"):
        seconds_of(duration)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.max_tokens=0", "trainer.max_tokens=0: must be at least 1"),
        ("trainer.max_flops=0", "trainer.max_flops=0.0: must be above 0, at most 1e+40"),
        ("trainer.max_flops=inf", "trainer.max_flops=inf: must be above 0, at most 1e+40"),
        ("trainer.tokens_per_parameter=nan", "trainer.tokens_per_parameter=nan: must be above 0, at most 1e+40"),
        ("trainer.max_time=60", "trainer.max_time=60: must be a duration of at least a second: 30s, 5min or 1h30m"),
        ("trainer.max_steps=null", "trainer.max_steps=null: the run has no length; give trainer.max_steps,"),
    ],
)
def test_a_wrong_length_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose([override])
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("override", "length"),
    [
        ("trainer.max_flops=1e15", {"max_flops": 1e15}),
        ("trainer.max_tokens=1_000_000", {"max_tokens": 1_000_000}),
        ("trainer.max_tokens=1e6", {"max_tokens": 1_000_000}),
        ("trainer.tokens_per_parameter=20", {"tokens_per_parameter": 20.0}),
        ("trainer.max_time=1h30m", {"max_time": "1h30m"}),
    ],
)
def test_stored_settings_keep_the_length_as_it_was_asked(override: str, length: dict[str, object]) -> None:
    stored = to_plain(compose([override]))
    assert config_from_plain(stored).trainer.length == length
    given = {**stored, "trainer": {name: value for name, value in stored["trainer"].items() if value is not None}}
    assert config_from_plain(given).trainer.length == length


def test_stored_settings_with_two_lengths_are_refused_naming_both() -> None:
    stored = to_plain(compose([]))
    stored["trainer"]["max_time"] = "5min"
    with pytest.raises(ConfigError, match=r"^trainer.max_steps and trainer.max_time: a run has one length"):
        config_from_plain(stored)


def test_a_run_of_an_earlier_version_keeps_its_identity() -> None:
    now = to_plain(compose([]))
    new = ("max_tokens", "max_flops", "tokens_per_parameter", "max_time")
    then = {**now, "trainer": {name: value for name, value in now["trainer"].items() if name not in new}}
    assert identity(then) == identity(completed(then)) == identity(now)
    assert identity(to_plain(compose(["trainer.max_time=5min"]))) != identity(now)
