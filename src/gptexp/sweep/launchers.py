"""Hand numbered jobs to one of Hydra's launchers: this process, processes of this machine, SLURM or Ray. No torch."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gptexp.compose.hydra_versions import run_task
from gptexp.compose.presets import conf_dir
from gptexp.compose.registry import STORED_JOB
from gptexp.config.override_syntax import by_key, quote
from gptexp.sweep.ending import PARENT
from gptexp.util.errors import ConfigError
from gptexp.util.text import install_extra

NEEDS = {"cores": "hydra_plugins.hydra_joblib_launcher", "ray": "hydra_plugins.hydra_ray_launcher"} | dict.fromkeys(
    ("slurm", "submitit_local", "submitit_slurm"), "hydra_plugins.hydra_submitit_launcher"
)
SLURM = ("slurm", "submitit_slurm")
REMOTE = ("slurm", "submitit_slurm", "ray")  # launchers whose jobs may run on other machines


def launcher_of(overrides: list[str]) -> str:
    """Return the name of the launcher that the overrides choose.

    Raises:
        ConfigError: its package is not installed.
    """
    name = by_key(overrides).get("hydra/launcher", "basic")
    package = NEEDS.get(name)
    if package is not None and find_spec("hydra_plugins") is not None and find_spec(package) is None:
        extra = "ray" if name == "ray" else "launchers"
        raise ConfigError(f"hydra/launcher={name}: its package is not installed; {install_extra(extra)}")
    return name


def require_scheduler(launcher: str) -> None:
    """Refuse SLURM on a machine without it."""
    if launcher in SLURM and shutil.which("srun") is None:
        remedy = "start it on the login node of the cluster, or use hydra/launcher=cores"
        raise ConfigError(f"hydra/launcher={launcher}: this machine has no SLURM (no srun); {remedy}")


def hand_out(
    task: Callable[..., Any],
    folder: Path,
    numbers: list[int],
    hydra: list[str],
    *,
    slots: int,
    config_name: str = STORED_JOB,
) -> None:
    """Let Hydra call the task for each number, with `hydra.sweep.dir` and `sweep.job`, and wait.

    numbers: none if a sweeper chooses them. hydra: further overrides of Hydra's settings. slots: most jobs at a time on
    this machine.
    """
    launcher = launcher_of(hydra)
    if launcher not in REMOTE:
        os.environ[PARENT] = str(os.getpid())
    place = [f"hydra.sweep.dir={quote(str(folder))}", "hydra.sweep.subdir=."]
    jobs = [f"sweep.job={','.join(map(str, numbers))}"] if numbers else []
    sys.argv[1:] = ["-m", *place, *jobs, *_limits(launcher, hydra, slots), *hydra]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # ray.yaml is intentionally checked by the plug-in's schema of the same name.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/ray' is validated against")
    try:
        run_task(task, str(conf_dir()), config_name)
    finally:
        (folder / "multirun.yaml").unlink(missing_ok=True)  # written by Hydra; the plan of the jobs replaces it


def _limits(launcher: str, given: list[str], slots: int) -> list[str]:
    """Return limits of a launcher that the user does not set.

    submitit's local executor would start all jobs at once and end each after an hour.
    """
    defaults = {
        "cores": {"hydra.launcher.n_jobs": str(slots)},
        "submitit_local": {"hydra.sweeper.max_batch_size": str(slots), "hydra.launcher.timeout_min": "10080"},
    }.get(launcher, {})
    keys = by_key(given)
    return [f"{key}={value}" for key, value in defaults.items() if key not in keys]
