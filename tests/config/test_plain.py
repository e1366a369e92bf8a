"""Plain data of settings equal those that OmegaConf makes, for values of other types, too."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gptexp.compose.composition import compose, config_from_plain
from gptexp.compose.presets import presets
from gptexp.config import KINDS, Config
from gptexp.config.conversion import defaults_of, from_plain, to_plain
from gptexp.config.plain import OtherType, plain_fields


class Size(Enum):
    small = 1


@dataclass
class Inner:
    rate: float = 0.5
    name: str | None = None


@dataclass
class Outer:
    inner: Inner = field(default_factory=Inner)
    size: Size = Size.small
    rate: float = 1.0
    steps: int | None = 3
    choice: bool | str = "auto"
    names: list[str] = field(default_factory=lambda: ["a"])
    parts: dict[str, Any] = field(default_factory=dict)
    inners: dict[str, Inner] = field(default_factory=dict)


@dataclass
class Deeper(Inner):
    more: int = 2


def by_omegaconf(config: object) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    except OmegaConfBaseException as error:
        return type(error)


def by_us(config: object) -> Any:
    try:
        return to_plain(config)
    except OmegaConfBaseException as error:
        return type(error)


def typed(plain: Any) -> Any:
    """With the types of all values: 1 equals 1.0 and True."""
    if isinstance(plain, dict):
        return [(typed(key), typed(value)) for key, value in plain.items()]
    return [typed(item) for item in plain] if isinstance(plain, list) else (type(plain), plain)


EXACT: list[dict[str, Any]] = [
    {},
    {"inner": Deeper(name="x")},
    {"steps": None, "choice": True, "names": []},
    {"parts": {"a": {"b": None, "c": 1.5, "d": {"e": "f"}}}},
    {"inners": {"a": Inner(2.0), "b": Deeper()}},
]
CONVERTED: list[dict[str, Any]] = [
    {"rate": 1},
    {"rate": "1e-3"},
    {"rate": None},
    {"rate": True},
    {"steps": 2.0},
    {"steps": True},
    {"choice": 3},
    {"size": "small"},
    {"size": "none"},
    {"inner": {"rate": 2}},
    {"inner": None},
    {"inner": Inner(rate=3)},
    {"inner": Inner(name="${oc.env:HOME}")},
    {"inner": Inner(name="${")},
    {"names": ("a", "b")},
    {"names": [1]},
    {"parts": {"a": {1: 2}}},
    {"parts": {"a": [1, "b"]}},
    {"parts": {"a": Inner()}},
    {"parts": {2: 3}},
    {"inners": {"a": {"rate": 1}}},
]


@pytest.mark.parametrize("changes", [*EXACT, *CONVERTED], ids=str)
def test_plain_data_are_those_of_omegaconf(changes: dict[str, Any]) -> None:
    config = replace(Outer(), **changes)
    assert typed(by_us(config)) == typed(by_omegaconf(config))


@pytest.mark.parametrize("changes", EXACT, ids=str)
def test_values_of_the_declared_types_need_no_omegaconf(changes: dict[str, Any]) -> None:
    plain_fields(replace(Outer(), **changes))


@pytest.mark.parametrize("changes", CONVERTED, ids=str)
def test_other_values_are_left_to_omegaconf(changes: dict[str, Any]) -> None:
    with pytest.raises(OtherType):
        plain_fields(replace(Outer(), **changes))


def test_presets_are_converted_without_omegaconf() -> None:
    for line in ([], ["callbacks=early_stopping"], *([f"experiment={name}"] for name in presets()["experiment"])):
        config = compose(line)
        assert typed(plain_fields(config)) == typed(by_omegaconf(config))


@pytest.mark.parametrize(("group", "kind"), [(group, kind) for group in KINDS for kind in KINDS[group]])
def test_schemas_of_all_kinds_are_converted_as_omegaconf_does(group: str, kind: str) -> None:
    made = OmegaConf.structured(KINDS[group][kind])
    assert made.kind == kind
    try:
        config = OmegaConf.to_object(made)
    except (OmegaConfBaseException, ValueError):  # a required setting
        return
    assert typed(to_plain(config)) == typed(by_omegaconf(config))


def test_the_shared_node_of_a_schema_stays_as_it_is() -> None:
    """Configurations are made from a copy of it."""
    first = compose(["model.n_layer=3", "trainer.max_steps=7"])
    for _ in range(2):
        assert config_from_plain(to_plain(first)) == first
        made = from_plain("model", {"kind": "gpt", "n_layer": 5})
        assert (made.n_layer, type(made)) == (5, KINDS["model"]["gpt"])
        assert from_plain("model", {"kind": "gpt"}) == KINDS["model"]["gpt"]()
    for schema in (Config, KINDS["model"]["gpt"]):
        assert OmegaConf.to_container(defaults_of(schema)) == OmegaConf.to_container(OmegaConf.structured(schema))
