"""Hydra's and OmegaConf's complaints, retold in one line: the key, the value, what would be right."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields

from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from gptexp.compose.other_names import hint, published
from gptexp.compose.registry import groups, setting_types
from gptexp.config import KINDS
from gptexp.config.conversion import first_line
from gptexp.config.override_syntax import parse
from gptexp.util.errors import ConfigError


def check_groups(overrides: list[str]) -> None:
    """Name an unknown option of a group, with the closest ones."""
    for override in overrides:
        parsed = parse(override)
        group, options = parsed.key_or_group, groups().get(parsed.key_or_group)
        if options is None or parsed.is_delete() or parsed.is_sweep_override():
            continue
        option = parsed.value()
        if option is None and group not in ("experiment", "debug", "sweep"):
            raise ConfigError(f"{group}=null: must be chosen; one of {', '.join(options)}")
        if isinstance(option, str) and option not in (*options, "source"):
            meant = published(option) if group == "model" else None
            raise ConfigError(f"{group}={option}: no such option; {meant or closest(option, options)}")


def explain(overrides: list[str], error: Exception) -> str:
    """Turn Hydra's message into one line about the override at fault."""
    for override in overrides:
        parsed = parse(override)
        key = parsed.key_or_group
        if parsed.is_sweep_override():
            return f"{override}: several values are a sweep; add -m, or quote the value: '{key}=\"…\"'"
        if key not in groups() and not key.startswith("hydra") and not _known(key):
            value = parsed.get_value_element_as_str()
            return f"{key}={value}: no such setting; {hint(key, value) or closest(key, settings())}"
        if parsed.is_add() and f"already at '{key}'" in str(error):
            return f"{override}: is there already; leave the plus out"
        if f"Could not override '{key}'" in str(error):  # a setting of another preset of the group
            if kinds := _kinds_with(key):
                return f"{key}={parsed.get_value_element_as_str()}: only {kinds} has it"
            if ".plugins." in key:
                return f"{override}: a new plug-in is added with a plus: +{override}"
            if parsed.is_delete():
                return f"{override}: a setting can't be taken away; give it another value"
    return _of_another_kind(overrides, error) or type_error(error) or first_line(error)


def without_dashes(flag: str, following: str | None) -> str:
    """How what was typed as an option of a command, --seed=3 or --seed 3, is written as a setting."""
    word, separator, value = flag.partition("=")
    name = word.lstrip("-")
    if not separator:
        value = following if following and not following.startswith("-") and "=" not in following else "…"
    names = (*settings(), *groups())
    known = name.replace("-", "_") if name.replace("-", "_") in names else None
    meant = f"write {known}={value}" if known else hint(name, value) or closest(name, names)
    return f"{flag}: a setting has no dashes; {meant}"


def _kinds_with(key: str) -> str:
    """The kinds of a group that have a setting, in words; empty where it isn't a group's."""
    group, _, name = key.rpartition(".")
    kinds = [kind for kind, schema in KINDS.get(group, {}).items() if name in {f.name for f in fields(schema)}]
    article = "an" if group[:1] in tuple("aeiou") else "a"
    return f"{article} {group} of kind {' or '.join(kinds)}" if kinds else ""


def _of_another_kind(overrides: list[str], error: Exception) -> str | None:
    """The experiment sets what the kind that the command line takes instead doesn't have."""
    cause = error.__context__
    key = getattr(cause, "full_key", None) or ""
    chosen = {parsed.key_or_group: parsed.get_value_element_as_str() for parsed in map(parse, overrides)}
    group, experiment = key.rpartition(".")[0], chosen.get("experiment")
    if experiment is None or group not in chosen or not isinstance(cause, ConfigKeyError):
        return None
    return f"{group}={chosen[group]}: experiment={experiment} sets {key}, which only {_kinds_with(key)} has"


def _known(key: str) -> bool:
    return key in settings() or any(name.startswith(f"{key}.") for name in settings()) or ".plugins." in key


def settings() -> tuple[str, ...]:
    """The dotted name of every setting of every schema."""
    return tuple(sorted(setting_types()))


def closest(word: str, known: Iterable[str]) -> str:
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


def type_error(error: Exception) -> str | None:
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
    message = first_line(error)
    if "is not Optional" in message:
        return "can't be null"
    if "not a valid bool" in message:
        return "must be true or false"
    if "Union[int, str]" in message or "int | str" in message:
        return "must be a whole number, or auto"
    if "is not a ListConfig" in message:
        return "must be a list, such as [a,b]"
    found = re.search(r"could not be converted to (\w+)", message)
    if found and found.group(1) in _WORDS:
        return f"must be {_WORDS[found.group(1)]}"
    found = re.search(r"Invalid value '.*', expected one of \[(.*)\]", message)
    if found:
        return f"choose one of {found.group(1)}"
    return message
