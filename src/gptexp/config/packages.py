"""Entry points of installed packages that extend gptexp. Only metadata is read here; nothing is imported."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

KINDS = {  # by the name of their entry points, the group of settings that they add kinds to
    "gptexp.models": "model",
    "gptexp.corpora": "data",
    "gptexp.tokenizers": "tokenizer",
    "gptexp.objectives": "objective",
    "gptexp.optimizers": "optimizer",
    "gptexp.schedules": "schedule",
}
CONF = "gptexp.conf"
SWITCH = "GPTEXP_PACKAGES"  # environment variable: 0 leaves all packages out


@dataclass(frozen=True)
class Offer:
    """What a package offers: a kind of a group of settings, or a folder of presets (`gptexp.conf`).

    package: name and version. value: `module:name` of a config class, or the package that holds the YAML files.
    """

    group: str
    name: str
    value: str
    package: str

    @property
    def top(self) -> str:
        """The package that is imported, which may differ from the name under which it was installed."""
        return self.value.partition(":")[0].partition(".")[0]

    def __str__(self) -> str:
        return f"{self.package} ({self.group}: {self.name} = {self.value})"


def offers() -> Iterator[Offer]:
    """Yield the entry points of installed packages, in a fixed order.

    Metadata in the current directory doesn't count: it may come from anybody, and nobody has installed it.
    """
    if os.environ.get(SWITCH) == "0":
        return
    found = entry_points()
    for group in (*KINDS, CONF):
        for point in sorted(found.select(group=group), key=lambda point: (point.name, _package(point))):
            if not _in_current_directory(point):
                yield Offer(group, point.name, point.value, _package(point))


def _package(point: EntryPoint) -> str:
    return "?" if point.dist is None else f"{point.dist.name} {point.dist.version}"


def _in_current_directory(point: EntryPoint) -> bool:
    return point.dist is None or Path(str(point.dist.locate_file(""))).resolve() == Path.cwd()


def folder_of(module: str) -> Path:
    """Return the folder of an installed package, or the file of a single module.

    Raises:
        ImportError: it is not installed, or a package that contains it fails to import.
    """
    try:
        spec = find_spec(module)
    except ImportError:
        raise
    except Exception as error:
        raise ImportError(f"{type(error).__name__}: {error}") from error
    if spec is None:
        raise ModuleNotFoundError(f"No module named {module!r}")
    places = list(spec.submodule_search_locations or [spec.origin or ""])
    return Path(places[0]).resolve()
