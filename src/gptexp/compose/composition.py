"""From overrides to a Config: Hydra composes the YAML of conf/, and the schemas of gptexp.config check it. No torch."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from gptexp.compose.hydra_versions import VERSION_BASE
from gptexp.compose.inheritance import with_source
from gptexp.compose.lengths import of_last_layer, removes_a_length
from gptexp.compose.messages import check_groups, closest, explain, kinds_with, setting_names, type_error
from gptexp.compose.mixtures import as_plain_parts, complete_parts
from gptexp.compose.overrides import one_of_each, quoted
from gptexp.compose.presets import conf_dir
from gptexp.compose.registry import STORED_JOB, groups, register_schemas, setting_types
from gptexp.config import KINDS, Config, MixtureConfig, environment_variables
from gptexp.config.conversion import corpora_of, defaults_of, message_of
from gptexp.config.fingerprint import completed
from gptexp.config.kinds import unknown
from gptexp.config.override_syntax import key_of, parse
from gptexp.util.errors import ConfigError


class Bases(dict[tuple[str, ...], tuple[DictConfig, Any]]):
    """Compositions by primary file and options of groups, each with Hydra's node; a cache for the jobs of a sweep."""


def compose(overrides: Iterable[str] = (), *, config_name: str = "train", bases: Bases | None = None) -> Config:
    """Compose one experiment, as `gptexp train OVERRIDES` would.

    Args:
        overrides: options of groups and values of settings, as typed on the command line.
        config_name: name of the primary file in conf/.
        bases: a cache to pass to each call where many experiments are composed. An experiment with the same options of
            groups as an earlier one then takes a tenth of the time.

    Raises:
        ConfigError: naming the key, the value and the remedy.
    """
    with _keep_hydras_state():
        given = list(overrides)
        composed = None if bases is None else _from_base(given, bases, config_name)
        return to_config(compose_raw(given, config_name=config_name)) if composed is None else _converted(composed)


def _from_base(given: list[str], bases: Bases, config_name: str) -> DictConfig | None:
    """Return the composition without Hydra's node; None if overrides are neither options of groups nor values.

    Hydra composes the groups first and then sets the values, with the function that is called here.
    """
    register_schemas()
    if removes_a_length(given):  # that of a preset below may return
        return None
    overrides = one_of_each([quoted(override) for override in given])
    values = [override for override in overrides if _sets_a_value(override)]
    choices = tuple(override for override in overrides if override not in values)
    if not all(_chooses_a_group(override) for override in choices):
        return None
    key = (config_name, *choices)
    if key not in bases:
        base = _without_hydra(compose_raw(list(choices), config_name=config_name))
        bases[key] = base, HydraConfig.instance().cfg
    base, HydraConfig.instance().cfg = bases[key]
    composed = copy.deepcopy(base)
    try:
        ConfigLoaderImpl._apply_overrides_to_config([parse(override) for override in values], composed)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(overrides, error)) from None
    return composed


def _sets_a_value(override: str) -> bool:
    parsed = parse(override)
    changes = not (parsed.is_add() or parsed.is_delete() or parsed.package or parsed.is_sweep_override())
    is_setting = parsed.key_or_group in setting_types()
    return changes and is_setting and parsed.key_or_group not in (*groups(), "resume", "init_from")


def _chooses_a_group(override: str) -> bool:
    parsed = parse(override)
    changes = parsed.type is OverrideType.CHANGE and not parsed.package and not parsed.is_sweep_override()
    return changes and parsed.key_or_group in groups() and not isinstance(parsed.value(), dict)


@contextmanager
def _keep_hydras_state() -> Iterator[None]:
    """Restore Hydra's global state, which belongs to the sweep if a sweeper composes a job."""
    outer, config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().clear()
        if outer is not None:
            GlobalHydra.instance().initialize(outer)
            HydraConfig.instance().cfg = config


def compose_raw(overrides: list[str], *, config_name: str = "train") -> DictConfig:
    """Return a composition with Hydra's node, before the rules of the schemas are checked.

    Raises:
        ConfigError: naming the override and the remedy.
    """
    register_schemas()
    overrides = with_source(one_of_each([quoted(o) for o in overrides]))
    check_groups(overrides)
    try:
        with initialize_config_dir(**VERSION_BASE, config_dir=str(conf_dir())):
            composed = hydra_compose(config_name, overrides, return_hydra_config=True)
            for override in of_last_layer(composed, config_name, overrides):
                OmegaConf.update(composed, key_of(override), None)
                composed.hydra.overrides.task.append(override)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(overrides, error)) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"conf/: {' '.join(str(error).split())}") from None
    HydraConfig.instance().set_config(composed)
    return composed


def check_hydra(overrides: list[str]) -> None:
    """Refuse settings of Hydra itself, such as hydra/launcher, before it starts jobs with them.

    Raises:
        ConfigError: naming the override and the remedy.
    """
    if overrides:
        with _keep_hydras_state():
            compose_raw(overrides, config_name=STORED_JOB)


def to_config(composed: DictConfig) -> Config:
    """Convert to dataclasses, which runs their rules.

    Raises:
        ConfigError: naming the key, the value and the remedy.
    """
    return _converted(_without_hydra(composed))


def _without_hydra(composed: DictConfig) -> DictConfig:
    copied = copy.deepcopy(composed)
    if "hydra" in copied:
        with flag_override(copied, ["struct", "readonly"], False):
            del copied["hydra"]
    return copied


def _converted(composed: DictConfig) -> Config:
    _refuse_unknown_settings("", composed)
    groups = [name for name in environment_variables.GROUPS if name in composed]
    unresolved = {name: OmegaConf.to_container(composed[name].plugins) for name in groups}
    mixes = OmegaConf.get_type(composed, "data") is MixtureConfig
    if mixes:
        complete_parts(composed)
    try:
        OmegaConf.resolve(composed)
        if mixes:
            composed.data.parts = as_plain_parts(composed.data.parts)
        config = OmegaConf.to_object(composed)
        assert isinstance(config, Config)
        for name, plugins in unresolved.items():
            group = getattr(config, name)
            group.plugins = environment_variables.keep_variables(plugins, group.plugins, f"{name}.plugins")
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(type_error(error) or message_of(error)) from None
    if isinstance(config.data, MixtureConfig):
        corpora_of(config.data)
    return config


def _refuse_unknown_settings(prefix: str, node: DictConfig) -> None:
    """Refuse `+model.foo=3`, which Hydra accepts, with an error that names the setting."""
    schema = OmegaConf.get_type(node)
    known = {f.name for f in fields(schema)} if is_dataclass(schema) else None
    for key in map(str, node):
        child = node._get_node(key)
        if known is not None and key not in known:
            if kinds := kinds_with(f"{prefix}{key}"):
                raise ConfigError(f"{prefix}{key}: only {kinds} has it")
            raise ConfigError(f"{prefix}{key}={child}: no such setting; {closest(f'{prefix}{key}', setting_names())}")
        if isinstance(child, DictConfig) and is_dataclass(OmegaConf.get_type(child)):
            _refuse_unknown_settings(f"{prefix}{key}.", child)


def config_from_plain(plain: object) -> Config:
    """Return the Config of stored settings, such as a run's config.yaml, and check it.

    Raises:
        ConfigError: naming an unknown key, kind or type.
    """
    register_schemas()
    if not isinstance(plain, dict):
        raise ConfigError("config.yaml: must be a mapping of settings")
    if environment_variables.interpolates(plain):  # they would be evaluated
        raise ConfigError("config.yaml: stored settings must be plain values, not interpolations")
    plain = completed(plain)
    root = copy.deepcopy(defaults_of(Config))
    for group, kinds in KINDS.items():
        chosen = plain.get(group)
        kind = chosen.get("kind") if isinstance(chosen, dict) else None
        if not isinstance(kind, str) or kind not in kinds:
            raise ConfigError(unknown(group, kind))
        root[group] = defaults_of(kinds[kind])
    try:
        return _converted(OmegaConf.merge(root, plain))  # type: ignore[arg-type]
    except OmegaConfBaseException as error:
        raise ConfigError(type_error(error) or message_of(error)) from None
