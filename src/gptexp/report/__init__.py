"""From run folders to an answer: reading, statistics, table, plots, page. Nothing here imports torch.

    reading -> comparable -> budget -> comparison -> table, plots, page

It needs the packages of the extra `compare`; `missing_packages` says which are not there.
"""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("scipy", "matplotlib", "jinja2")


def missing_packages() -> list[str]:
    """The packages of the extra `compare` that are not installed."""
    return [package for package in PACKAGES if find_spec(package) is None]


def compare_command(*arguments: str | Path) -> str:
    """The command line that compares these folders, quoted for a shell."""
    return shlex.join(["python", "-m", "gptexp.compare", *map(str, arguments)])
