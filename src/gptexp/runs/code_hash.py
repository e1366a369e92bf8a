"""One hash of the code that a run uses: the Python files of gptexp, its plug-ins and its extensions (no torch)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from gptexp.config.kinds import kinds_in, packages_of
from gptexp.config.packages import CONF, folder_of, offers
from gptexp.config.plugins import PLUGINS
from gptexp.util.package import PACKAGE

NOT_PLUGINS = ("gptexp", "lightning")  # gptexp's files are hashed anyway; provenance has lightning's version


def code_sha256(settings: object = None) -> str:
    """Return the hash of the code that this process started with. It is computed once because files may change.

    settings: an experiment, or stored settings; the packages that their kinds come from are part of the hash.
    """
    used = packages_of(kinds_in(settings)) if settings is not None else {}
    return _hash(tuple(sorted({offer.top for offer in used.values()})))


def all_code_sha256() -> str:
    """Return the same with all installed packages that offer kinds."""
    return _hash(tuple(sorted({offer.top for offer in offers() if offer.group != CONF})))


@cache
def _hash(packages: tuple[str, ...]) -> str:
    files = [*package_files(PACKAGE), *plugin_files()]
    for package in packages:
        place = folder_of(package)
        found = package_files(place) if place.is_dir() else [(place.name, place)]
        files += [(f"{package}/{name}", path) for name, path in found]
    return hash_files(files)


def package_files(package: Path) -> Iterator[tuple[str, Path]]:
    """Yield (relative path, path) of a package's Python files, without hidden files."""
    for path in package.rglob("*.py"):
        name = path.relative_to(package)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            yield name.as_posix(), path


def plugin_files() -> Iterator[tuple[str, Path]]:
    """Yield (module, path) of the plug-in classes that a user added to `PLUGINS`."""
    modules = {target.rpartition(".")[0] for targets in PLUGINS.values() for target in targets}
    for module in sorted(module for module in modules if module.partition(".")[0] not in NOT_PLUGINS):
        try:
            spec = find_spec(module)
        except (ImportError, ValueError):  # listed, but not installed
            continue
        if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
            yield module, Path(spec.origin)


def hash_files(files: Iterable[tuple[str, Path]]) -> str:
    """Return the SHA-256 of names and contents. Line ends don't count, because a checkout on Windows changes them."""
    digest = hashlib.sha256()
    for name, path in sorted(files):
        content = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
