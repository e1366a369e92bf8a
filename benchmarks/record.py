"""Write the results of a benchmark as JSON, with a description of the machine and the versions."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any


def add_option(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the option --json FILE; the default is benchmarks-out/<name>.json in the current directory."""
    default = Path("benchmarks-out") / f"{name}.json"
    parser.add_argument("--json", type=Path, default=default, help="output file (default: %(default)s)")


def save(path: Path, figures: Any, device: str = "cpu", *, quiet: bool = False) -> None:
    """Write the figures with the date, the commit, the versions and the machine."""
    from gptexp.machine.hardware import describe
    from gptexp.runs.provenance import code_version
    from gptexp.util.files import write_json

    path.parent.mkdir(parents=True, exist_ok=True)
    code = code_version()
    commit = code.git and code.git.commit
    about = {"date": time.strftime("%Y-%m-%d"), "commit": commit, "versions": code.versions}
    write_json(path, {**about, "machine": describe(device), "figures": figures})
    if not quiet:
        print(path)
