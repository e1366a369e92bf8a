"""One hash of the code that a process runs: the package's Python files and those of plug-ins (no torch)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from gptexp.config.plugins import PLUGINS
from gptexp.util.package import PACKAGE

INSTALLED = ("gptexp", "lightning")  # the hash covers gptexp's files anyway; versions tell about lightning


@cache
def code_sha256() -> str:
    """The hash of the code that this process started with: computed once, because files may change later."""
    return hash_files([*package_files(PACKAGE), *plugin_files()])


def package_files(package: Path) -> Iterator[tuple[str, Path]]:
    """The Python files of a package, by their path in it; not what editors hide beside them."""
    for path in package.rglob("*.py"):
        name = path.relative_to(package)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            yield name.as_posix(), path


def plugin_files() -> Iterator[tuple[str, Path]]:
    """The files of plug-in classes that a user added to `PLUGINS` from a package of their own, by module name."""
    modules = {target.rpartition(".")[0] for targets in PLUGINS.values() for target in targets}
    for module in sorted(module for module in modules if module.partition(".")[0] not in INSTALLED):
        try:
            spec = find_spec(module)
        except (ImportError, ValueError):  # the plug-in is listed, but not installed
            continue
        if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
            yield module, Path(spec.origin)


def hash_files(files: Iterable[tuple[str, Path]]) -> str:
    """SHA-256 of names and contents; the ends of lines don't count, which a checkout on Windows changes."""
    digest = hashlib.sha256()
    for name, path in sorted(files):
        content = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
