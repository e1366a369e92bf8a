"""What every benchmark leaves behind: a JSON file with its figures, the machine and the versions."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any


def add_option(parser: argparse.ArgumentParser, name: str) -> None:
    """--json FILE, by default <name>.json in the current directory's benchmarks-out/."""
    default = Path("benchmarks-out") / f"{name}.json"
    parser.add_argument("--json", type=Path, default=default, help="where the figures go (default: %(default)s)")


def save(path: Path, figures: Any, device: str = "cpu", *, quiet: bool = False) -> None:
    """Write the figures, with all that is needed to judge them."""
    from gptexp.machine.hardware import describe
    from gptexp.runs.provenance import code_version
    from gptexp.util.files import write_json

    path.parent.mkdir(parents=True, exist_ok=True)
    code = code_version()
    commit = (code["git"] or {}).get("commit")
    about = {"date": time.strftime("%Y-%m-%d"), "commit": commit, "versions": code["versions"]}
    write_json(path, {**about, "machine": describe(device), "figures": figures})
    if not quiet:
        print(path)
