"""The schemas of gptexp.config, where Hydra finds them; settings to plain data and back. No torch."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gptexp.config import KINDS
from gptexp.config.environment_variables import interpolates
from gptexp.config.fingerprint import WITHOUT_KINDS, completed
from gptexp.config.kinds import discover_kinds
from gptexp.util import text
from gptexp.util.errors import ConfigError


def to_plain(config: object) -> dict[str, Any]:
    """A config as str, int, float, bool, None, list and dict, complete and resolved."""
    # What a config holds is resolved, but for the variables that plug-ins name, which stay so.
    plain = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(plain, dict)
    return plain  # type: ignore[return-value]


def from_plain(group: str, plain: object) -> Any:
    """Read one group's settings back through its schema; what a stranger wrote stays data.

    Raises:
        ConfigError: an unknown kind, key or type, named.
    """
    discover_kinds()
    if not isinstance(plain, dict) or (group in KINDS and not isinstance(plain.get("kind"), str)):
        raise ConfigError(f"{group}: not a group of settings")
    schema = KINDS[group].get(plain["kind"]) if group in KINDS else WITHOUT_KINDS[group]
    if schema is None:
        raise ConfigError(f"{group}.kind={plain['kind']}: not known here; known: {', '.join(KINDS[group])}")
    if interpolates({group: plain}):
        raise ConfigError(f"{group}: stored settings must be plain values, not interpolations")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), completed({group: plain})[group]))
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{group}: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """As in gptexp.util.text, without what OmegaConf says before an error of a resolver of ours."""
    return text.first_line(error).removeprefix("ValueError raised while resolving interpolation: ")
