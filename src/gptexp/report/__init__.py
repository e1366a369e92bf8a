"""Compares run folders: reading, statistics, table, plots and page. Nothing here imports torch.

    reading -> comparable -> budget -> comparison -> table, plots, page

Needs the packages of the extra `compare`; `missing_packages` lists those that are not installed.
"""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("scipy", "matplotlib", "jinja2")


def missing_packages() -> list[str]:
    """Return the packages of the extra `compare` that are not installed."""
    return [package for package in PACKAGES if find_spec(package) is None]


def compare_command(*arguments: str | Path) -> str:
    """Return the command line that compares these folders, quoted for a shell."""
    return shlex.join(["gptexp", "compare", *map(str, arguments)])
