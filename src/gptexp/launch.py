"""Running a composed experiment: in this process, or as ranks that read the stored composition."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import yaml

from gptexp.config import Config
from gptexp.files import atomic_write
from gptexp.runs import RunError
from gptexp.schemas import to_plain

STORED = ".ranks.yaml"


def inside_rank() -> bool:
    """Whether a launcher (torchrun, our own) has already made this process a rank."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def start_ranks(config: Config, folder: Path, processes: int) -> None:
    """Start the ranks of one node as children that read the stored composition, and wait.

    torchrun supervises them: when one dies, it takes the others down. This process never joins the
    group, so nothing of it leaks into a next job.

    Raises:
        RunError: a rank failed, with its own message.
    """
    stored = folder / STORED
    atomic_write(stored, yaml.safe_dump(to_plain(config), allow_unicode=True).encode())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "gptexp.worker", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": _threads(processes)}
    try:
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace") as ranks:
            assert ranks.stderr is not None
            withheld = _forward(ranks.stderr)
    finally:
        stored.unlink(missing_ok=True)
    if ranks.returncode != 0:
        raise RunError(_cause(withheld) or f"{folder}: a rank failed (exit code {ranks.returncode})")


def _forward(lines: Iterable[str]) -> list[str]:
    """Pass the ranks' notices on as they come; from the first error or traceback on, keep all for `_cause`.

    After a failure torchrun adds pages of its own, in which the cause would drown.
    """
    withheld: list[str] = []
    for line in lines:
        if withheld or line.startswith(("error: ", "Traceback ")) or re.match(r"\[?rank\d+\]?:|[WEI]\d{4} ", line):
            withheld.append(line)
        else:
            sys.stderr.write(line)
    return withheld


def _cause(withheld: list[str]) -> str | None:
    """The line that a rank wrote for the user; without one it was a bug, and everything is shown."""
    for line in withheld:
        if line.startswith("error: "):
            return line.removeprefix("error: ").rstrip()
    sys.stderr.writelines(withheld)
    return None


def _threads(processes: int) -> str:
    return os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // processes))


def stored_config(folder: Path) -> Config:
    """The composition that the parent stored for its ranks, through the schemas."""
    from gptexp.compose import config_from_plain

    return config_from_plain(yaml.safe_load((folder / STORED).read_text(encoding="utf-8")))
