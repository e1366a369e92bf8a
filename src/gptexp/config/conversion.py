"""Settings to plain data and back. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from gptexp.config import KINDS, DataConfig, MixtureConfig
from gptexp.config.environment_variables import interpolates
from gptexp.config.fingerprint import WITHOUT_KINDS, completed
from gptexp.config.kinds import unknown
from gptexp.config.plain import OtherType, plain_fields
from gptexp.util.errors import ConfigError
from gptexp.util.text import first_line


def to_plain(config: object) -> dict[str, Any]:
    """Return a config as str, int, float, bool, None, list and dict, with environment variables left unresolved."""
    with suppress(OtherType):
        return plain_fields(config)
    plain = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(plain, dict)
    return plain  # type: ignore[return-value]


@cache
def defaults_of(schema: type) -> DictConfig:
    """Return the node of a schema, to be merged or assigned, which copy it: a copy is faster than a new node."""
    node = OmegaConf.structured(schema)
    assert isinstance(node, DictConfig)
    return node


def from_plain(group: str, plain: object) -> Any:
    """Return the config of one group of stored settings, which may be untrusted: nothing in them is evaluated.

    Raises:
        ConfigError: naming an unknown kind, key or type.
    """
    if not isinstance(plain, dict) or (group in KINDS and not isinstance(plain.get("kind"), str)):
        raise ConfigError(f"{group}: not a group of settings")
    schema = KINDS[group].get(plain["kind"]) if group in KINDS else WITHOUT_KINDS[group]
    if schema is None:
        raise ConfigError(unknown(group, plain["kind"]))
    if interpolates({group: plain}):
        raise ConfigError(f"{group}: stored settings must be plain values, not interpolations")
    try:
        return OmegaConf.to_object(OmegaConf.merge(defaults_of(schema), completed({group: plain})[group]))
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{group}: {message_of(error)}") from None


def corpora_of(mixture: MixtureConfig) -> dict[str, DataConfig]:
    """Return the settings of each part of a mixture, and check them.

    Raises:
        ConfigError: naming an unknown kind, key or type of a part.
    """
    found = {}
    for name, part in mixture.parts.items():
        with errors_of_part(name):
            found[name] = from_plain("data", {key: value for key, value in part.items() if key != "weight"})
    return found


@contextmanager
def errors_of_part(name: str) -> Iterator[None]:
    """Let errors about settings `data.…` of one corpus name those of a part of a mixture, `data.parts.NAME.…`."""
    try:
        yield
    except ValueError as error:
        settings = "|".join(sorted({field.name for schema in KINDS["data"].values() for field in fields(schema)}))
        text = re.sub(rf"(?<![\w/.])data\.({settings})\b", rf"data.parts.{name}.\1", str(error).removeprefix("data: "))
        text = re.sub(r"^data=", f"data.parts.{name}=", text)
        kind = ConfigError if isinstance(error, ConfigError) else ValueError
        raise kind(text if text.startswith("data.parts.") else f"data.parts.{name}: {text}") from None


def message_of(error: BaseException) -> str:
    """Return the first line of an error, or of the ValueError of a resolver that OmegaConf wrapped in it."""
    cause: BaseException | None = error
    while type(cause) is InterpolationResolutionError:
        cause = cause.__context__
    return first_line(cause if isinstance(cause, ValueError) else error)
