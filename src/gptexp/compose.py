"""From a command line to a Config: Hydra composes the YAML of conf/, the schemas of gptexp.config check it.

Every door, test and notebook comes through `compose`. What is wrong is one ConfigError that names
the key, the value and what would be right. Nothing here imports torch.
"""

from __future__ import annotations

import copy
import itertools
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from datetime import datetime
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from gptexp.config import (
    KINDS,
    CallbacksConfig,
    Config,
    LoggerConfig,
    PathsConfig,
    TrainerConfig,
)

# Where an implementation of a group's `kind` lives, and the files there that are none.
ROOMS = {"model": "gptexp.models", "tokenizer": "gptexp.tokenizers", "data": "gptexp.data.corpora"}
MODEL_PARTS = {"attention", "layers", "init"}


class ConfigError(ValueError):
    """A setting that can't be: one line for the user, without a traceback."""


# --------------------------------------------------------------------------------- the folder


def conf_dir() -> Path:
    """The YAML: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


@cache
def groups() -> dict[str, tuple[str, ...]]:
    """Every group of conf/ and its options, by name."""
    folders = sorted(folder for folder in conf_dir().iterdir() if folder.is_dir())
    return {folder.name: tuple(sorted(p.stem for p in folder.glob("*.yaml"))) for folder in folders}


@cache
def register_schemas() -> None:
    """Put the schemas where the YAML finds them, and the resolvers of run names."""
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config)
    for name, schema in {
        "trainer": TrainerConfig,
        "callbacks": CallbacksConfig,
        "logger": LoggerConfig,
        "paths": PathsConfig,
    }.items():
        store.store(group="schema", name=name, node=schema)
    _discover_kinds()
    for group, kinds in KINDS.items():
        for kind, schema in kinds.items():
            store.store(group=f"schema/{group}", name=kind, node=schema)
    OmegaConf.register_new_resolver("run_name", _run_name, replace=True)
    OmegaConf.register_new_resolver("run_id", _run_id, replace=True, use_cache=True)


def _discover_kinds() -> None:
    """A file that the user adds to a room brings its own schema, as the class `Config` beside the implementation.

    A new model's file imports torch, so only where there is one is torch imported this early.
    """
    for group, package in ROOMS.items():
        folder = Path(__file__).parent.joinpath(*package.split(".")[1:])
        for path in sorted(folder.glob("[!_]*.py")):
            if path.stem not in KINDS[group] and not (group == "model" and path.stem in MODEL_PARTS):
                KINDS[group][path.stem] = import_module(f"{package}.{path.stem}").Config


def _run_name(model: str, data: str) -> str:
    return f"{model}-{data}"


def _run_id() -> str:
    """Time and two random letters: runs that start in the same second stay apart."""
    letters = "".join(secrets.choice("abcdefghijkmnpqrstuvwxyz23456789") for _ in range(3))
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{letters}"


# --------------------------------------------------------------------------------- composing


def compose(overrides: Iterable[str] = (), *, config_name: str = "train") -> Config:
    """Compose one experiment, as `python -m gptexp.train OVERRIDES` would.

    Raises:
        ConfigError: naming the key, the value and the remedy.
    """
    return to_config(compose_raw(list(overrides), config_name=config_name))


def compose_raw(overrides: list[str], *, config_name: str = "train") -> DictConfig:
    """The composition before its rules are checked, with Hydra's own node."""
    register_schemas()
    overrides = with_source([quoted(o) for o in overrides])
    _check_groups(overrides)
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
            composed = hydra_compose(config_name, overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(overrides, error)) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"conf/: {' '.join(str(error).split())}") from None
    HydraConfig.instance().set_config(composed)
    return composed


def to_config(composed: DictConfig) -> Config:
    """Convert to dataclasses, which runs their rules.

    Raises:
        ConfigError: naming the key, the value and the remedy.
    """
    own = copy.deepcopy(composed)
    if "hydra" in own:
        with flag_override(own, ["struct", "readonly"], False):
            del own["hydra"]
    _refuse_strays("", own)
    try:
        OmegaConf.resolve(own)
        config = OmegaConf.to_object(own)
    except (OmegaConfBaseException, ValueError) as error:
        if isinstance(error, OmegaConfBaseException):
            raise ConfigError(_type_error(error) or _first_line(error)) from None
        raise ConfigError(_first_line(error)) from None
    assert isinstance(config, Config)
    return config


def _refuse_strays(prefix: str, node: DictConfig) -> None:
    """`+model.foo=3` would be accepted up to the conversion, which then fails without a name."""
    schema = OmegaConf.get_type(node)
    known = {f.name for f in fields(schema)} if is_dataclass(schema) else None
    for key in node:
        child = node._get_node(key)
        if known is not None and key not in known:
            raise ConfigError(f"{prefix}{key}={child}: no such setting; {_closest(f'{prefix}{key}', settings())}")
        if isinstance(child, DictConfig) and is_dataclass(OmegaConf.get_type(child)):
            _refuse_strays(f"{prefix}{key}.", child)


def to_plain(config: object) -> dict[str, Any]:
    """A config as str, int, float, bool, None, list and dict, complete and resolved."""
    plain = OmegaConf.to_container(OmegaConf.structured(config), resolve=True, enum_to_str=True)
    assert isinstance(plain, dict)
    return plain  # type: ignore[return-value]


def from_plain(group: str, plain: object) -> Any:
    """Read one group's settings back through its schema; what a stranger wrote stays data.

    Raises:
        ConfigError: an unknown kind, key or type, named.
    """
    register_schemas()
    if not isinstance(plain, dict) or not isinstance(plain.get("kind"), str):
        raise ConfigError(f"{group}: not a group of settings")
    schema = KINDS[group].get(plain["kind"])
    if schema is None:
        raise ConfigError(f"{group}.kind={plain['kind']}: not known here; known: {', '.join(KINDS[group])}")
    if any("${" in str(value) for value in plain.values()):
        raise ConfigError(f"{group}: stored settings must be plain values, not interpolations")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), plain))
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{group}: {_first_line(error)}") from None


def config_from_plain(plain: object) -> Config:
    """A whole stored composition (a run folder's config.yaml) as a Config, checked again.

    Raises:
        ConfigError: an unknown key, kind or type, named.
    """
    register_schemas()
    if not isinstance(plain, dict):
        raise ConfigError("config.yaml: not a composition")
    root = OmegaConf.structured(Config)
    for group, kinds in KINDS.items():
        kind = plain.get(group, {}).get("kind")
        if kind not in kinds:
            raise ConfigError(f"{group}.kind={kind}: not known here; known: {', '.join(kinds)}")
        root[group] = OmegaConf.structured(kinds[kind])
    try:
        return to_config(OmegaConf.merge(root, plain))  # type: ignore[arg-type]
    except OmegaConfBaseException as error:
        raise ConfigError(_type_error(error) or _first_line(error)) from None


# ------------------------------------------------------------------- a source's settings as base

SOURCE_GROUPS = {
    "resume": ("model", "tokenizer", "data", "optimizer", "schedule", "trainer"),
    "init_from": ("model", "tokenizer"),
}
# What may differ from the interrupted run: how long, on what, where to; never what is computed.
FREE_ON_RESUME = {
    "trainer.max_steps",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.compile",
    "trainer.log_every_steps",
    "data.num_workers",
    "data.micro_batch_size",
    "data.path",
}
FREE_ON_INIT = {"model.dropout", "model.attn_dropout", "model.block_size"}


def with_source(overrides: list[str]) -> list[str]:
    """With `resume=RUN` or `init_from=RUN`, let that run's settings be the base below the overrides."""
    given = {o.split("=", 1)[0]: o.split("=", 1)[1] for o in overrides if "=" in o}
    for verb, brought in SOURCE_GROUPS.items():
        run = _unquoted(given.get(verb, ""))
        if run and run != "null":
            settings = _source_settings(run)
            chosen = [group for group in brought if group not in given]
            base = [f"{group}=source" for group in chosen if _store_source(group, settings)]
            if verb == "resume" and "seed" not in given:
                base.append(f"seed={int(settings['seed'])}")
            if "name" not in given and verb == "resume":
                base.append(f"name={_quote(str(settings['name']))}")
            return base + overrides
    return overrides


def check_against_source(config: Config) -> None:
    """Refuse, by name, a setting that `resume` or `init_from` can't change.

    Raises:
        ConfigError: naming the setting, the source's value and the one asked for.
    """
    run = config.resume or config.init_from
    if run is None:
        return
    verb = "resume" if config.resume else "init_from"
    free = FREE_ON_RESUME if config.resume else FREE_ON_INIT
    source, wanted = _source_settings(run), to_plain(config)
    for group in SOURCE_GROUPS[verb]:
        for key in sorted({*source[group], *wanted[group]}):
            old, new, setting = source[group].get(key), wanted[group].get(key), f"{group}.{key}"
            if old != new and setting not in free and setting != "data.block_size":
                raise ConfigError(f"{setting}={new}: {verb}={run} has {old}, which can't change; leave it out")
    if config.resume and source["seed"] != config.seed:
        raise ConfigError(f"seed={config.seed}: resume={run} has {source['seed']}, which can't change; leave it out")
    if config.init_from and config.model.block_size > source["model"]["block_size"]:
        raise ConfigError(
            f"model.block_size={config.model.block_size}: init_from={run} has {source['model']['block_size']}, "
            "which can only become smaller"
        )


def _source_settings(run: str) -> dict[str, Any]:
    from gptexp.runs import read_settings

    try:
        return read_settings(run)
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from None


def _store_source(group: str, settings: dict[str, Any]) -> bool:
    """Offer a source's settings to Hydra as the option `source` of a group."""
    plain = dict(settings[group])
    schema = f"/schema/{group}" if group == "trainer" else f"/schema/{group}/{plain.get('kind')}"
    if group != "trainer":
        from_plain(group, plain)
    else:
        free = ("accelerator", "devices", "num_nodes", "strategy", "compile")
        plain = {key: value for key, value in plain.items() if key not in free}
    plain.pop("kind", None)
    if group == "data":
        plain["block_size"] = "${model.block_size}"
    node = {"defaults": [f"{schema}@_here_", "_self_"], **plain}
    ConfigStore.instance().store(group=group, name="source", node=node)
    return True


# -------------------------------------------------------------------------- reading overrides


def quoted(override: str) -> str:
    """Quote, for the user, a value that Hydra's grammar would trip over: 哈利/*.txt, books[1].txt."""
    key, separator, value = override.partition("=")
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return f"{key}={_quote(value)}" if separator else override
    is_text = key.lstrip("+") in _TEXT_SETTINGS and value and value[0] not in "'\""
    return f"{key}={_quote(value)}" if is_text and parsed.is_sweep_override() and os.path.exists(value) else override  # noqa: PTH110


_TEXT_SETTINGS = {"data.path", "data.data_files", "resume", "init_from", "paths.data", "paths.logs", "paths.cache"}


def _quote(value: str) -> str:
    escaped = value.replace("'", "\\'")
    return f"'{escaped}'"


def _unquoted(value: str) -> str:
    return value[1:-1].replace("\\'", "'") if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def jobs_of(overrides: list[str]) -> list[list[str]]:
    """The overrides of each job of a sweep, in Hydra's own order: the last key runs fastest."""
    parser = OverridesParser.create()
    axes: list[list[str]] = []
    for override in map(quoted, overrides):
        parsed = parser.parse_override(override)
        if parsed.is_sweep_override():
            axes.append([f"{parsed.get_key_element()}={value}" for value in parsed.sweep_string_iterator()])
        else:
            axes.append([override])
    return [list(job) for job in itertools.product(*axes)]


# -------------------------------------------------------------------------------- explaining


def _check_groups(overrides: list[str]) -> None:
    """Name an unknown option of a group, with the closest ones."""
    for override in overrides:
        parsed = _parse(override)
        group, options = parsed.key_or_group, groups().get(parsed.key_or_group)
        if options is None or parsed.is_delete() or parsed.is_sweep_override():
            continue
        option = parsed.value()
        if option is None and group not in ("experiment", "debug"):
            raise ConfigError(f"{group}=null: must be chosen; one of {', '.join(options)}")
        if isinstance(option, str) and option not in (*options, "source"):
            raise ConfigError(f"{group}={option}: no such option; {_closest(option, options)}")


def _parse(override: str) -> Override:
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        raise ConfigError(f"{override}: not of the form key=value") from None


def _explain(overrides: list[str], error: Exception) -> str:
    """Turn Hydra's message into one line about the override at fault."""
    for override in overrides:
        parsed = _parse(override)
        key = parsed.key_or_group
        if parsed.is_sweep_override():
            return f"{override}: several values are a sweep; add -m, or quote the value: '{key}=\"…\"'"
        if key not in groups() and not key.startswith("hydra") and not _known(key):
            return f"{key}={parsed.get_value_element_as_str()}: no such setting; {_closest(key, settings())}"
        if f"Could not override '{key}'" in str(error):  # a setting of another preset of the group
            group, _, name = key.rpartition(".")
            kinds = [kind for kind, schema in KINDS.get(group, {}).items() if name in {f.name for f in fields(schema)}]
            return f"{key}={parsed.get_value_element_as_str()}: only a {group} of kind {' or '.join(kinds)} has it"
    return _type_error(error) or _first_line(error)


def _known(key: str) -> bool:
    return key in settings() or any(name.startswith(f"{key}.") for name in settings()) or ".plugins." in key


@cache
def settings() -> tuple[str, ...]:
    """The dotted name of every setting of every schema."""
    register_schemas()
    roots = {**{(group, kind): schema for group, kinds in KINDS.items() for kind, schema in kinds.items()}}
    names = set(_leaves("", OmegaConf.structured(Config)))
    for (group, _), schema in roots.items():
        names.update(_leaves(f"{group}.", OmegaConf.structured(schema)))
    return tuple(sorted(names))


def _leaves(prefix: str, node: DictConfig) -> Iterable[str]:
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_missing() and not child._is_interpolation():
            yield from _leaves(f"{prefix}{key}.", child)
        yield f"{prefix}{key}"


def _closest(word: str, known: Iterable[str]) -> str:
    """What the user may have meant, or what there is."""
    from rapidfuzz import fuzz, process

    known = list(known)
    prefix, _, leaf = word.rpartition(".")
    siblings = [name for name in known if name.rpartition(".")[0] == prefix] if prefix else known
    near = [match for match, score, _ in process.extract(word, siblings, scorer=fuzz.ratio, limit=3) if score >= 70]
    near = [match for match in near if fuzz.ratio(match.rpartition(".")[2], leaf) >= 60]
    near = near or [name for name in known if name.rpartition(".")[2] == leaf]  # n_layer, optimizer.n_layer
    if near:
        return f"did you mean {' or '.join(near)}?"
    if siblings and len(siblings) <= 25:
        return f"choose one of {', '.join(siblings)}"
    return "`python -m gptexp.train --help` lists the groups, `--cfg job` the settings"


def _type_error(error: Exception) -> str | None:
    """`Value 'fast' of type 'str' could not be converted to Float` with its key, in our form."""
    cause = error.__cause__ or error.__context__
    for candidate in (error, cause):
        if isinstance(candidate, OmegaConfBaseException) and candidate.full_key:
            value = candidate.value if candidate.value is not None else "null"
            return f"{candidate.full_key}={value}: {_plain_message(candidate)}"
    text = str(error)
    found = re.search(r"full_key: (\S+)", text)
    return f"{found.group(1)}: {_plain_message(error)}" if found else None


_WORDS = {
    "Integer": "a whole number",
    "Float": "a number",
    "Boolean": "true or false",
}


def _plain_message(error: Exception) -> str:
    message = _first_line(error)
    if "is not Optional" in message:
        return "can't be null"
    if "not a valid bool" in message:
        return "must be true or false"
    found = re.search(r"could not be converted to (\w+)", message)
    if found and found.group(1) in _WORDS:
        return f"must be {_WORDS[found.group(1)]}"
    found = re.search(r"Invalid value '.*', expected one of \[(.*)\]", message)
    if found:
        return f"choose one of {found.group(1)}"
    return message


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
