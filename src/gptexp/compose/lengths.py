"""The length of a run in a composition: the last layer that names one replaces those below it. No torch.

The layers are the defaults of the schema, the presets of conf/ in the order of Hydra's defaults list, the axes of a
sweep's preset, and the command line.
"""

from __future__ import annotations

from collections.abc import Iterable

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from gptexp.config.length import LENGTHS, asked, require_one
from gptexp.config.override_syntax import by_key, key_of
from gptexp.util.errors import ConfigError

SETTINGS = tuple(f"trainer.{name}" for name in LENGTHS)


def one_length(overrides: list[str]) -> list[str]:
    """Add overrides so that a length on the command line replaces one of another kind.

    Raises:
        ConfigError: the command line gives two, which the message names.
    """
    given = by_key(override for override in overrides if key_of(override) in SETTINGS)
    named = [name for name in LENGTHS if given.get(f"trainer.{name}", "null") != "null"]
    if not named:
        return overrides
    _require_one(named)
    return [*(f"{setting}=null" for setting in SETTINGS if setting not in given), *overrides]


def without_replaced(preset: Iterable[str], given: Iterable[str]) -> list[str]:
    """Return the axes of a sweep's preset, without a length if the command line gives one."""
    replaced = same_length(map(key_of, given))
    return [axis for axis in preset if key_of(axis) not in replaced]


def same_length(settings: Iterable[str]) -> tuple[str, ...]:
    """Return all settings that give a length if one of them is among these settings."""
    return () if {*SETTINGS}.isdisjoint(settings) else SETTINGS


def of_last_layer(composed: DictConfig, config_name: str, overrides: list[str]) -> list[str]:
    """Return the overrides that remove all lengths but that of the last preset that names one; none if there is one.

    Hydra must be initialized with the folder of the presets.

    Raises:
        ConfigError: that preset gives two lengths.
    """
    present = _named(composed)
    if len(present) < 2:
        return []
    loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, ConfigLoaderImpl)
    _, repository = loader._parse_overrides_and_create_caching_repo(config_name, overrides)
    layers = loader.compute_defaults_list(config_name, overrides, RunMode.RUN).defaults
    for layer in reversed(layers):
        named = [name for name in _named(loader._load_single_config(layer, repository).config) if name in present]
        if named:
            _require_one(named, f"{layer.config_path}: ")
            return [f"trainer.{name}=null" for name in present if name not in named]
    raise AssertionError("no layer names a length that the composition has")


def removed_lengths(composed: Iterable[str], given: Iterable[str]) -> list[str]:
    """Return the overrides that a composition added to those that were given."""
    return [f"{setting}=null" for setting in SETTINGS if f"{setting}=null" in {*composed} - {*given}]


def removes_a_length(overrides: Iterable[str]) -> bool:
    """Return whether the user sets a length to null."""
    return any(override in {f"{setting}=null" for setting in SETTINGS} for override in overrides)


def _named(config: object) -> list[str]:
    """Return the lengths that a layer, or a composition, gives."""
    node = OmegaConf.select(config, "trainer") if isinstance(config, DictConfig) else None
    trainer = OmegaConf.to_container(node, resolve=False) if isinstance(node, DictConfig) else None
    return list(asked(trainer)) if isinstance(trainer, dict) else []  # type: ignore[arg-type]


def _require_one(names: list[str], place: str = "") -> None:
    try:
        require_one(names, place)
    except ValueError as error:
        raise ConfigError(str(error)) from None
