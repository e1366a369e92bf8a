"""Running a composed experiment: in this process, or as ranks that read the stored composition."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from gptexp.config import Config
from gptexp.runs import CONFIG, RunError


def inside_rank() -> bool:
    """Whether a launcher (torchrun, our own) has already made this process a rank."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def start_ranks(folder: Path, processes: int) -> None:
    """Start the ranks of one node as children that read the run folder's config.yaml, and wait.

    torchrun supervises them: when one dies, it takes the others down and names the cause. This process
    never joins the group, so nothing of it leaks into a next job.

    Raises:
        RunError: a rank failed; its own message stands above.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["--log-dir", str(folder / "ranks"), "-m", "gptexp.worker", str(folder)]
    environment = {**os.environ, "TORCHELASTIC_ERROR_FILE": "", "OMP_NUM_THREADS": _threads(processes)}
    finished = subprocess.run(command, env=environment, check=False)
    if finished.returncode != 0:
        raise RunError(f"{folder}: a rank failed (exit code {finished.returncode}); its message stands above")


def _threads(processes: int) -> str:
    return os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // processes))


def stored_config(folder: Path) -> Config:
    """The composition that a run folder holds, through the schemas."""
    from gptexp.compose import config_from_plain

    return config_from_plain(yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8")))
