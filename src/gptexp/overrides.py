"""Reading a command line's `key=value`: Hydra's grammar, and what it trips over."""

from __future__ import annotations

import itertools
import os

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException


def quoted(override: str) -> str:
    """Quote, for the user, a value that Hydra's grammar would trip over: 哈利/*.txt, books[1].txt."""
    key, separator, value = override.partition("=")
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return f"{key}={quote(value)}" if separator else override
    is_text = key.lstrip("+") in _TEXT_SETTINGS and value and value[0] not in "'\""
    return f"{key}={quote(value)}" if is_text and parsed.is_sweep_override() and os.path.exists(value) else override  # noqa: PTH110


_TEXT_SETTINGS = {
    "data.path",
    "data.val_path",
    "data.data_files",
    "tokenizer.path",
    "resume",
    "init_from",
    "paths.data",
    "paths.logs",
    "paths.cache",
}


def quote(value: str) -> str:
    escaped = value.replace("'", "\\'")
    return f"'{escaped}'"


def unquoted(value: str) -> str:
    return value[1:-1].replace("\\'", "'") if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def one_batch_setting(overrides: list[str]) -> list[str]:
    """A global batch in tokens puts aside a preset's in windows, and the other way round."""
    windows, tokens = "data.global_batch_size", "data.global_batch_tokens"
    given = {override.partition("=")[0] for override in overrides} & {windows, tokens}
    other = {frozenset({windows}): [f"{tokens}=null"], frozenset({tokens}): [f"{windows}=null"]}
    return other.get(frozenset(given), []) + overrides


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
