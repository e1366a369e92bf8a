"""Overrides `key=value`, parsed by Hydra's grammar."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from gptexp.util.errors import ConfigError


@lru_cache(maxsize=10_000)
def parse(override: str) -> Override:
    """Return an override as Hydra parses it.

    Raises:
        ConfigError: the override does not follow Hydra's grammar.
    """
    if not override.strip():
        raise ConfigError(f"{override!r}: an empty argument; leave it out (is a shell variable empty?)")
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        raise ConfigError(f"{override}: not of the form key=value") from None


def key_of(override: str) -> str:
    """Return the setting or group of an override, without plus, tilde and package."""
    return parse(override).key_or_group


def text_of(override: str) -> str:
    """Return the value as text without quotes."""
    parsed = parse(override)
    if parsed.is_sweep_override() or parsed.value_type is None:
        return override.partition("=")[2]
    value = parsed.value()
    return value if isinstance(value, str) else parsed.get_value_element_as_str()


def by_key(overrides: Iterable[str]) -> dict[str, str]:
    """Return the value of each setting as text. The last override of a setting counts."""
    return {key_of(override): text_of(override) for override in overrides if not parse(override).is_delete()}


def is_swept(override: str) -> bool:
    """Return whether an override has several values."""
    return bool(parse(override).is_sweep_override())


def quote(value: str) -> str:
    """Return a text in the quotes of Hydra's grammar."""
    return QuotedString(text=value, quote=Quote.single).with_quotes()
