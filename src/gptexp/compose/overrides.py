"""Reading a command line's `key=value` by Hydra's own parser, and what its grammar reads otherwise than a person."""

from __future__ import annotations

import itertools
import os

from hydra.core.override_parser.types import Glob, ValueType
from omegaconf import IntegerNode, StringNode

from gptexp.compose.registry import groups, setting_types
from gptexp.config.override_syntax import key_of, parse, quote
from gptexp.util.errors import ConfigError
from gptexp.util.files import user_path

_ALIASES = {"dry_run": "sweep.dry_run"}
_PLACES = ("paths.data", "paths.logs", "paths.cache")
_FOLDERS = {"hydra.run.dir": StringNode, "hydra.sweep.dir": StringNode}


def quoted(override: str, *, several: bool = False) -> str:
    """The override in a form that Hydra reads as a person means it.

    Text settings keep what was typed (a git hash isn't a number), whole numbers may be written as 1e3, and what
    trips the grammar is quoted (哈利/*.txt, books[1].txt). Commas separate values, except in a path that exists, and
    except, unless the command line has several jobs, in a prompt.
    """
    typed, separator, value = override.partition("=")
    name = typed.lstrip("+~")
    if not separator:
        return override
    if name in _PLACES and value.startswith("~"):  # a shell resolves it at the start of a word only
        value = str(user_path(value, name))
    override = f"{typed.replace(name, _ALIASES.get(name, name))}={value}"
    kind = _FOLDERS.get(name) or setting_types().get(name)
    if not _is_plain(override):
        return override
    is_path = kind is StringNode and "," in value and os.path.exists(value)  # noqa: PTH110
    is_prompt = name.endswith(".prompt") and not several
    pieces = [value] if is_path or is_prompt else _pieces(value)
    meant = [_meant(piece, kind) for piece in pieces]
    return override if meant == pieces else f"{override.partition('=')[0]}={','.join(meant)}"


def _is_plain(override: str) -> bool:
    """Whether the value is a value, or several with commas between them: no function, and not what Hydra has quoted."""
    try:
        parsed = parse(override)
    except ConfigError:
        return True
    return parsed.value_type in (ValueType.ELEMENT, ValueType.SIMPLE_CHOICE_SWEEP)


def _pieces(value: str) -> list[str]:
    """What commas separate outside of brackets and quotes."""
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


def _meant(text: str, kind: type | None) -> str:
    """A value as it was typed, in quotes where Hydra would take it for something else."""
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
    """A global batch in tokens puts aside a preset's in windows, and the other way round."""
    windows, tokens = "data.global_batch_size", "data.global_batch_tokens"
    given = {key_of(override) for override in overrides} & {windows, tokens}
    other = {frozenset({windows}): [f"{tokens}=null"], frozenset({tokens}): [f"{windows}=null"]}
    return other.get(frozenset(given), []) + overrides


def listed(override: str) -> str:
    """An override whose glob(…) is the list of the options that fit.

    Raises:
        ConfigError: none fits, or it isn't a group's.
    """
    parsed = parse(override)
    glob = parsed.value() if parsed.value_type is ValueType.GLOB_CHOICE_SWEEP else None
    if not isinstance(glob, Glob):
        return override
    options = groups().get(parsed.key_or_group)
    if options is None:
        raise ConfigError(f"{override}: glob(…) chooses among a group's options; {parsed.key_or_group} is no group")
    fitting = glob.filter(list(options))
    if not fitting:
        raise ConfigError(f"{override}: no such option; one of {', '.join(options)}")
    return f"{parsed.get_key_element()}={','.join(fitting)}"


def jobs_of(overrides: list[str]) -> list[list[str]]:
    """The overrides of each job of a sweep, in Hydra's own order: the last key runs fastest."""
    axes: list[list[str]] = []
    for override in (listed(quoted(override, several=True)) for override in overrides):
        parsed = parse(override)
        if parsed.is_sweep_override():
            axes.append([f"{parsed.get_key_element()}={value}" for value in parsed.sweep_string_iterator()])
        else:
            axes.append([override])
    return [list(job) for job in itertools.product(*axes)]
