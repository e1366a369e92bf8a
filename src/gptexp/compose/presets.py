"""The YAML files of presets: those of gptexp, of installed packages, and of --config-dir. No torch."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from gptexp.config import packages
from gptexp.util.errors import ConfigError
from gptexp.util.package import PACKAGE

_config_dir: list[Path] = []  # the folder of --config-dir, for the whole process


def conf_dir() -> Path:
    """Return gptexp's folder of YAML: in the installed package, or at the top of a checkout."""
    installed = PACKAGE / "conf"
    return installed if installed.is_dir() else PACKAGE.parents[1] / "conf"


def use_config_dir(name: str) -> None:
    """Add the presets of a folder, as --config-dir does.

    Raises:
        ConfigError: there is no such folder.
    """
    folder = Path(name).expanduser().resolve()
    if not folder.is_dir():
        raise ConfigError(f"--config-dir={name}: no such folder; give one with presets, such as DIR/model/mine.yaml")
    _config_dir[:] = [folder]
    _sources.cache_clear()
    presets.cache_clear()


@cache
def _sources() -> dict[str, Path]:
    """Return the folders of presets by what they belong to, gptexp's first."""
    found = {"gptexp": conf_dir()}
    for offer in packages.offers():
        if offer.group == packages.CONF:
            try:
                found[offer.package] = packages.folder_of(offer.value)
            except ImportError as error:
                warnings.warn(f"{offer} has no presets: {error}; repair or uninstall it", stacklevel=1)
    return found | {f"--config-dir={folder}": folder for folder in _config_dir}


@cache
def presets() -> dict[str, dict[str, Path]]:
    """Return the files of presets by group and option.

    Raises:
        ConfigError: two of them have the same name.
    """
    owners: dict[str, str] = {}
    found: dict[str, dict[str, Path]] = {}
    for owner, folder in _sources().items():
        for path in sorted(folder.rglob("*.yaml")):
            name, _, option = path.relative_to(folder).with_suffix("").as_posix().rpartition("/")
            _refuse_clash(f"{name}/{option}", owner, owners, path)
            if name and "/" not in name and name != "hydra":
                found.setdefault(name, {})[option] = path
    return {group: dict(sorted(found[group].items())) for group in sorted(found)}


def _refuse_clash(name: str, owner: str, owners: dict[str, str], path: Path) -> None:
    if name in owners:
        setting = name.strip("/").replace("/", "=", 1) if "/" in name.strip("/") else name.strip("/")
        raise ConfigError(
            f"{setting}: {owner} and {owners[name]} have a preset of this name; rename {path}, or uninstall one of them"
        )
    owners[name] = owner


class _SearchPath(SearchPathPlugin):
    """Adds the folders after gptexp's to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        presets()  # refuses a clash, where Hydra would take the first
        for owner, folder in [*_sources().items()][1:]:
            search_path.append(provider=owner, path=f"file://{folder}")


def register_search_path() -> None:
    """Let Hydra find the presets, in this process only: another Hydra program has its own."""
    Plugins.instance().register(_SearchPath)
