"""The parts of a mixture: from what is typed to the complete settings of each. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from gptexp.compose.messages import closest, type_error
from gptexp.compose.presets import presets
from gptexp.config import KINDS
from gptexp.config.conversion import errors_of_part, message_of
from gptexp.config.data import NESTED, OF_ALL_PARTS, require_part_name
from gptexp.config.kinds import unknown
from gptexp.util.errors import ConfigError

DEFAULT = ("pydocs", "python_stdlib")  # the parts of a mixture without any
CORPUS = "corpus"  # the key of the option of data that a part is made from
OF_EACH_PART = ("val_fraction", "val_bytes", "max_tokens")  # a part without its own has those of the mixture


def complete_parts(composed: DictConfig) -> None:
    """Replace what is given of each part of a mixture by all settings of its kind.

    Raises:
        ConfigError: naming the part and the setting.
    """
    data = composed.data
    given = {str(name): _given(data.parts._get_node(name)) for name in data.parts} or {name: {} for name in DEFAULT}
    with flag_override(data, ["struct", "readonly"], False):
        data.parts = {}
        for name, part in given.items():
            data.parts[name] = _complete(name, part, {key: data[key] for key in OF_EACH_PART})


def as_plain_parts(parts: DictConfig) -> dict[str, Any]:
    """Return complete parts as plain data: kind and weight first, without the settings of all parts together."""
    found = {}
    for name in map(str, parts):
        plain = OmegaConf.to_container(parts[name], enum_to_str=True)
        assert isinstance(plain, dict)
        first = {"kind": plain["kind"], "weight": plain.pop("weight", 1)}
        found[name] = first | {key: value for key, value in plain.items() if key not in OF_ALL_PARTS}
    return found


def _given(node: Any) -> dict[str, Any]:
    """Return what is given of a part. A preset in a defaults list of YAML brings all settings: its defaults are not."""
    schema = OmegaConf.get_type(node) if isinstance(node, DictConfig) else None
    plain = OmegaConf.to_container(node, enum_to_str=True) if isinstance(node, DictConfig) else node._value()
    if isinstance(plain, str):
        return {CORPUS: plain}
    if not isinstance(plain, dict):
        raise ConfigError(f"data.parts.{node._key()}={plain}: must be an option of data, or settings of a corpus")
    defaults = OmegaConf.to_container(OmegaConf.structured(schema), enum_to_str=True) if is_dataclass(schema) else {}
    assert isinstance(defaults, dict)
    return {str(key): value for key, value in plain.items() if key == "kind" or (key, value) not in defaults.items()}


def _complete(name: str, given: dict[str, Any], shared: dict[str, Any]) -> DictConfig:
    try:
        require_part_name(name)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    values = shared | _of_option(name, given) | {key: value for key, value in given.items() if key != CORPUS}
    weight, kind = values.pop("weight", 1), values.get("kind")
    if kind not in KINDS["data"] or kind == "mixture":
        why = NESTED if kind == "mixture" else unknown("data", kind).partition(": ")[2]
        raise ConfigError(f"data.parts.{name}.kind={kind}: {why}")
    known = [field.name for field in fields(KINDS["data"][kind]) if field.name not in OF_ALL_PARTS]
    for key in values.keys() - set(known):
        setting = f"data.parts.{name}.{key}={values[key]}"
        if key in OF_ALL_PARTS:
            raise ConfigError(f"{setting}: is a setting of all parts together; give data.{key}")
        raise ConfigError(f"{setting}: no such setting of kind {kind}; {closest(str(key), [*known, 'weight'])}")
    try:
        whole = OmegaConf.merge(OmegaConf.structured(KINDS["data"][kind]), values)
    except OmegaConfBaseException as error:
        with errors_of_part(name):
            raise ConfigError(f"data.{type_error(error) or message_of(error)}") from None
    assert isinstance(whole, DictConfig)
    with flag_override(whole, "struct", False):
        whole.weight = weight
    return whole


def _of_option(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the preset that a part is made from. A part without any is the corpus of its name."""
    options = [option for option in presets()["data"] if option != "mixture"]
    if CORPUS not in given and ("kind" in given or name in options):
        return {} if "kind" in given else _values_of(name)
    part = f"data.parts.{name}"
    if CORPUS not in given:
        raise ConfigError(f"{part}: names no corpus; add {part}=OPTION, one of {', '.join(options)}")
    option = "null" if given[CORPUS] is None else str(given[CORPUS])
    if option == "mixture":
        raise ConfigError(f"{part}={option}: {NESTED}")
    if option not in options:
        raise ConfigError(f"{part}={option}: no such option; {closest(option, options)}")
    return _values_of(option)


def _values_of(option: str) -> dict[str, Any]:
    """Return the values that a preset of data sets, and its kind, following the presets that it is based on."""
    plain = OmegaConf.to_container(OmegaConf.load(presets()["data"][option]))
    assert isinstance(plain, dict)
    found: dict[str, Any] = {}
    for entry in plain.pop("defaults", []):
        base = str(entry).partition("@")[0].removeprefix("/")
        if base.startswith("schema/data/"):
            found["kind"] = base.removeprefix("schema/data/")
        elif base != "_self_" and base.removeprefix("data/") in presets()["data"]:
            found |= _values_of(base.removeprefix("data/"))
    return found | {str(key): value for key, value in plain.items()}


def of_part(override: str) -> str:
    """Return an override of a part in the form that Hydra needs: data.parts.NAME=OPTION, or a setting below it."""
    typed, equals, value = override.partition("=")
    found = re.fullmatch(r"\+{0,2}(?:data@)?data\.parts\.([^.=@]+)(\..+)?", typed)
    if not (equals and found):
        return override
    name, below = found.groups()
    whole = below is None and value.lstrip().startswith("{")
    return f"++data.parts.{name}{'' if whole else below or f'.{CORPUS}'}={value}"


def of_one_corpus(name: str) -> str:
    """Return the setting of a corpus alone that a setting of a part is: data.path for data.parts.NAME.path."""
    return re.sub(r"^data\.parts\.[^.]+\.", "data.", name)
