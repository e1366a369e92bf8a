"""provenance.json: command, code, versions, machine and data of a run."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gptexp.runs.code_hash import code_sha256
from gptexp.runs.layout import (
    PROVENANCE,
)
from gptexp.util import git
from gptexp.util.entry_point import program_words
from gptexp.util.files import (
    read_json,
)
from gptexp.util.package import PACKAGE

COMMAND = "GPTEXP_COMMAND"  # the user's command line, for the processes that it starts


def last_code(folder: Path) -> str | None:
    """The hash of the code that a run was last trained with, where its provenance files say it."""
    steps = {int(path.stem.rpartition("-")[2]): path for path in folder.glob("provenance-[0-9]*.json")}
    path = steps[max(steps)] if steps else folder / PROVENANCE
    try:
        code = read_json(path).get("code_sha256")
    except (OSError, ValueError):
        return None
    return code if isinstance(code, str) else None


def provenance(data: dict[str, Any], hardware: dict[str, Any]) -> dict[str, Any]:
    """What is needed to repeat the run: command, code, versions, machine, data."""
    try:
        directory = str(Path.cwd())
    except OSError:  # it has been deleted
        directory = None
    return {
        "command": os.environ.get(COMMAND) or command_line(),
        "directory": directory,
        **code_version(),
        "hardware": {"machine": platform.machine(), "system": platform.platform(), **hardware},
        "data": data,
    }


def code_version() -> dict[str, Any]:
    """The code that runs: its hash, commit and uncommitted changes where it is a checkout, and versions."""
    return {"code_sha256": code_sha256(), "git": git.state(PACKAGE), "versions": versions()}


def command_line() -> str:
    """Return the command line as typed: `python -m gptexp.train …` or `gptexp train …`."""
    line = shlex.join([*program_words(), *sys.argv[1:]])
    return line.encode(errors="backslashreplace").decode()  # names of files that are no UTF-8


def versions() -> dict[str, str]:
    """Of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in ("gptexp", "torch", "lightning", "hydra-core", "omegaconf", "numpy", "tiktoken", "tokenizers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found
