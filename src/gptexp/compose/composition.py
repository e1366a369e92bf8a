"""From a command line to a Config: Hydra composes the YAML of conf/, the schemas of gptexp.config check it.

Every door, test and notebook comes through `compose`. What is wrong is one ConfigError that names
the key, the value and what would be right. Nothing here imports torch.
"""

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
from gptexp.compose.messages import check_groups, closest, explain, settings, type_error
from gptexp.compose.overrides import one_batch_setting, quoted
from gptexp.compose.registry import conf_dir, groups, register_schemas, setting_types
from gptexp.config import KINDS, Config, environment_variables
from gptexp.config.conversion import message_of
from gptexp.config.fingerprint import completed
from gptexp.config.override_syntax import parse
from gptexp.util.errors import ConfigError


class Bases(dict[tuple[str, ...], tuple[DictConfig, Any]]):
    """What choices of groups compose to, and Hydra's own node with it; kept for the jobs of a sweep."""


def compose(overrides: Iterable[str] = (), *, config_name: str = "train", bases: Bases | None = None) -> Config:
    """Compose one experiment, as `python -m gptexp.train OVERRIDES` would.

    bases: kept by who composes many experiments; those that choose the same groups then cost a tenth.

    Raises:
        ConfigError: naming the key, the value and the remedy.
    """
    with _apart_from_a_running_hydra():
        given = list(overrides)
        composed = None if bases is None else _on_base(given, bases, config_name)
        return to_config(compose_raw(given, config_name=config_name)) if composed is None else _converted(composed)


def _on_base(given: list[str], bases: Bases, config_name: str) -> DictConfig | None:
    """As compose_raw, without Hydra's node; None where more is given than choices of groups and values of settings.

    Hydra composes the groups, and then sets the values, by the function that is called here too.
    """
    register_schemas()
    overrides = one_batch_setting([quoted(override) for override in given])
    values = [override for override in overrides if _sets_a_value(override)]
    choices = tuple(override for override in overrides if override not in values)
    if not all(_chooses_a_group(override) for override in choices):
        return None
    if choices not in bases:
        base = _without_hydra(compose_raw(list(choices), config_name=config_name))
        bases[choices] = base, HydraConfig.instance().cfg
    base, HydraConfig.instance().cfg = bases[choices]
    composed = copy.deepcopy(base)
    try:
        ConfigLoaderImpl._apply_overrides_to_config([parse(override) for override in values], composed)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(overrides, error)) from None
    return composed


def _sets_a_value(override: str) -> bool:
    parsed = parse(override)
    plain = not (parsed.is_add() or parsed.is_delete() or parsed.package or parsed.is_sweep_override())
    named = parsed.key_or_group in setting_types() and parsed.key_or_group not in (*groups(), "resume", "init_from")
    return plain and named


def _chooses_a_group(override: str) -> bool:
    parsed = parse(override)
    plain = parsed.type is OverrideType.CHANGE and not parsed.package and not parsed.is_sweep_override()
    return plain and parsed.key_or_group in groups() and not isinstance(parsed.value(), dict)


@contextmanager
def _apart_from_a_running_hydra() -> Iterator[None]:
    """Hydra keeps what it composes in globals; a sweeper that composes a job must leave the sweep's as they were."""
    outer, settings = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().clear()
        if outer is not None:
            GlobalHydra.instance().initialize(outer)
            HydraConfig.instance().cfg = settings


def compose_raw(overrides: list[str], *, config_name: str = "train") -> DictConfig:
    """The composition before its rules are checked, with Hydra's own node."""
    register_schemas()
    overrides = with_source(one_batch_setting([quoted(o) for o in overrides]))
    check_groups(overrides)
    try:
        with initialize_config_dir(**VERSION_BASE, config_dir=str(conf_dir())):
            composed = hydra_compose(config_name, overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(overrides, error)) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"conf/: {' '.join(str(error).split())}") from None
    HydraConfig.instance().set_config(composed)
    return composed


def to_config(composed: DictConfig) -> Config:
    """Convert to dataclasses, which runs their rules.

    Raises:
        ConfigError: naming the key, the value and the remedy.
    """
    return _converted(_without_hydra(composed))


def _without_hydra(composed: DictConfig) -> DictConfig:
    """A copy without Hydra's own node."""
    own = copy.deepcopy(composed)
    if "hydra" in own:
        with flag_override(own, ["struct", "readonly"], False):
            del own["hydra"]
    return own


def _converted(own: DictConfig) -> Config:
    _refuse_strays("", own)
    typed = {name: OmegaConf.to_container(own[name].plugins) for name in environment_variables.GROUPS if name in own}
    try:
        OmegaConf.resolve(own)
        config = OmegaConf.to_object(own)
        assert isinstance(config, Config)
        for name, plugins in typed.items():
            group = getattr(config, name)
            group.plugins = environment_variables.keep_variables(plugins, group.plugins, f"{name}.plugins")
    except (OmegaConfBaseException, ValueError) as error:
        if isinstance(error, OmegaConfBaseException):
            raise ConfigError(type_error(error) or message_of(error)) from None
        raise ConfigError(message_of(error)) from None
    return config


def _refuse_strays(prefix: str, node: DictConfig) -> None:
    """`+model.foo=3` would be accepted up to the conversion, which then fails without a name."""
    schema = OmegaConf.get_type(node)
    known = {f.name for f in fields(schema)} if is_dataclass(schema) else None
    for key in map(str, node):
        child = node._get_node(key)
        if known is not None and key not in known:
            raise ConfigError(f"{prefix}{key}={child}: no such setting; {closest(f'{prefix}{key}', settings())}")
        if isinstance(child, DictConfig) and is_dataclass(OmegaConf.get_type(child)):
            _refuse_strays(f"{prefix}{key}.", child)


def config_from_plain(plain: object) -> Config:
    """A whole stored composition (a run folder's config.yaml) as a Config, checked again.

    Raises:
        ConfigError: an unknown key, kind or type, named.
    """
    register_schemas()
    if not isinstance(plain, dict):
        raise ConfigError("config.yaml: not a composition")
    if environment_variables.interpolates(plain):  # would be evaluated
        raise ConfigError("config.yaml: stored settings must be plain values, not interpolations")
    plain = completed(plain)
    root = OmegaConf.structured(Config)
    for group, kinds in KINDS.items():
        chosen = plain.get(group)
        kind = chosen.get("kind") if isinstance(chosen, dict) else None
        if not isinstance(kind, str) or kind not in kinds:
            raise ConfigError(f"{group}.kind={kind}: unknown; choose one of {', '.join(kinds)}")
        root[group] = OmegaConf.structured(kinds[kind])
    try:
        return to_config(OmegaConf.merge(root, plain))  # type: ignore[arg-type]
    except OmegaConfBaseException as error:
        raise ConfigError(type_error(error) or message_of(error)) from None
