"""Overrides `key=value` as users type them, in the form that Hydra's grammar requires. No torch."""

from __future__ import annotations

import itertools
import os

from hydra.core.override_parser.types import Glob, ValueType
from omegaconf import IntegerNode, StringNode

from gptexp.compose.lengths import one_length
from gptexp.compose.mixtures import of_one_corpus, of_part
from gptexp.compose.registry import groups, setting_types
from gptexp.config.override_syntax import key_of, parse, quote
from gptexp.util.errors import ConfigError
from gptexp.util.files import user_path

_ALIASES = {"dry_run": "sweep.dry_run"}
_PLACES = ("paths.data", "paths.logs", "paths.cache")
_FOLDERS = {"hydra.run.dir": StringNode, "hydra.sweep.dir": StringNode}


def quoted(override: str, *, several: bool = False) -> str:
    """Return an override with the quotes that Hydra needs to read the value as it was typed.

    Text settings keep the typed text (12e45 is not a number), whole numbers can be written as 1e3, and values that
    break the grammar are quoted (哈利/*.txt, books[1].txt). Commas separate values, except in the path of an existing
    file and, if the command line is for one run, in a prompt.
    """
    override = of_part(override)
    typed, separator, value = override.partition("=")
    name = typed.lstrip("+~")
    if not separator:
        return override
    if name in _PLACES and value.startswith("~"):  # a shell expands it only at the start of a word
        value = str(user_path(value, name))
    override = f"{typed.replace(name, _ALIASES.get(name, name))}={value}"
    kind = _FOLDERS.get(name) or setting_types().get(of_one_corpus(name))
    if not _has_values(override):
        return override
    is_path = kind is StringNode and "," in value and os.path.exists(value)  # noqa: PTH110
    is_prompt = name.endswith(".prompt") and not several
    pieces = [value] if is_path or is_prompt else _pieces(value)
    values = [_quoted_value(piece, kind) for piece in pieces]
    return override if values == pieces else f"{override.partition('=')[0]}={','.join(values)}"


def _has_values(override: str) -> bool:
    """Return whether an override has a value, or values separated by commas, and no function of Hydra's grammar."""
    try:
        parsed = parse(override)
    except ConfigError:
        return True
    return parsed.value_type in (ValueType.ELEMENT, ValueType.SIMPLE_CHOICE_SWEEP)


def _pieces(value: str) -> list[str]:
    """Return the parts of a value between commas that are outside brackets and quotes."""
    pieces, opened, depth = [""], "", 0
    for before, sign in zip(f" {value}", value, strict=False):
        escaped = before == "\\"
        if opened:
            opened = "" if sign == opened and not escaped else opened
        elif sign in "'\"" and not pieces[-1].strip():
            opened = sign
        else:
            depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and not (opened or escaped or depth > 0):
            pieces.append("")
        else:
            pieces[-1] += sign
    return pieces if len(pieces) == 1 else [piece.strip() for piece in pieces]


def _quoted_value(text: str, kind: type | None) -> str:
    """Return a value in quotes if Hydra would otherwise read it as another value."""
    try:
        parsed = parse(f"x={text}")
    except ConfigError:
        return quote(text)
    value = parsed.value()
    if kind is StringNode and not isinstance(value, str) and value is not None and not text.startswith(("[", "{")):
        return quote(text)
    if kind is StringNode and text != text.strip():
        return quote(text)
    if kind is IntegerNode and isinstance(value, float) and value.is_integer() and "e" in text.lower():
        return str(int(value))
    return text


def one_batch_setting(overrides: list[str]) -> list[str]:
    """Add an override so that a batch size in tokens replaces a preset's in windows, and vice versa."""
    windows, tokens = "data.global_batch_size", "data.global_batch_tokens"
    given = {key_of(override) for override in overrides} & {windows, tokens}
    other = {frozenset({windows}): [f"{tokens}=null"], frozenset({tokens}): [f"{windows}=null"]}
    return other.get(frozenset(given), []) + overrides


def one_of_each(overrides: list[str]) -> list[str]:
    """Return the overrides with those that remove what they replace: a batch size or a length of another kind.

    Raises:
        ConfigError: the overrides give two lengths.
    """
    return one_length(one_batch_setting(overrides))


def listed(override: str) -> str:
    """Return an override with glob(…) replaced by the list of the options that match.

    Raises:
        ConfigError: no option matches, or the key is not a group.
    """
    parsed = parse(override)
    glob = parsed.value() if parsed.value_type is ValueType.GLOB_CHOICE_SWEEP else None
    if not isinstance(glob, Glob):
        return override
    options = groups().get(parsed.key_or_group)
    if options is None:
        raise ConfigError(f"{override}: glob(…) selects options of a group; {parsed.key_or_group} is not a group")
    matching = glob.filter(list(options))
    if not matching:
        raise ConfigError(f"{override}: no such option; one of {', '.join(options)}")
    return f"{parsed.get_key_element()}={','.join(matching)}"


def jobs_of(overrides: list[str]) -> list[list[str]]:
    """Return the overrides of each job of a sweep in Hydra's order: the last key varies fastest."""
    axes: list[list[str]] = []
    for override in (listed(quoted(override, several=True)) for override in overrides):
        parsed = parse(override)
        if parsed.is_sweep_override():
            axes.append([f"{parsed.get_key_element()}={value}" for value in parsed.sweep_string_iterator()])
        else:
            axes.append([override])
    return [list(job) for job in itertools.product(*axes)]
