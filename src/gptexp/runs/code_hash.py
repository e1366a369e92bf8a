"""One hash of the code that a process runs: the Python files of gptexp and of its plug-ins (no torch)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from gptexp.config.plugins import PLUGINS
from gptexp.util.package import PACKAGE

NOT_PLUGINS = ("gptexp", "lightning")  # gptexp's files are hashed anyway; provenance has lightning's version


@cache
def code_sha256() -> str:
    """Return the hash of the code that this process started with. It is computed once because files may change."""
    return hash_files([*package_files(PACKAGE), *plugin_files()])


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
