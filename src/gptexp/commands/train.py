"""`gptexp train`: train one experiment or run a sweep, as the only process or as one of several ranks."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gptexp.compose import commandline
from gptexp.compose.composition import to_config
from gptexp.compose.hydra_versions import run_task
from gptexp.compose.inheritance import check_against_source
from gptexp.compose.presets import conf_dir
from gptexp.compose.registry import register_schemas
from gptexp.machine.rank_environment import Rank
from gptexp.runs.provenance import COMMAND, command_line
from gptexp.training.worker import lead_or_follow
from gptexp.util.errors import USER_ERROR, fail, one_line_errors


def run() -> None:
    """Train as the command line describes, as the only process, as rank 0, or as another rank of a run."""
    lead_or_follow(lead, refuse=_refuse_sweep)


def _refuse_sweep(started: Rank) -> None:
    if commandline.sweep_overrides(sys.argv[1:]) is None:
        return
    if started.rank == 0:
        fail(
            "-m: a sweep starts the ranks of its jobs; run it once, without torchrun or srun "
            "(if neither is used: unset RANK and WORLD_SIZE)"
        )
    sys.exit(USER_ERROR)


def lead() -> None:
    """Compose, check and run, as the only process or as rank 0."""
    with one_line_errors():
        register_schemas()
    os.environ[COMMAND] = command_line()
    if given := next((word for word in sys.argv[1:] if word.startswith("prepare.")), None):
        fail(f"{given}: is a setting of gptexp prepare; run that first, and leave it out here")
    if (overrides := commandline.sweep_overrides(sys.argv[1:])) is not None:
        _sweeps().main(overrides, task)
        return
    sys.argv[1:], config = commandline.checked_command(sys.argv[1:])
    if config is not None and config.sweep.dry_run:
        _sweeps().show_one(config)
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors instead of reporting them
    with one_line_errors():
        run_task(task, str(conf_dir()), "train")


def _sweeps() -> ModuleType:
    from gptexp.sweep import launching  # neither --help nor a wrong command line waits for it

    return launching


def task(composed: DictConfig) -> float | None:
    """Run one job and return the value that a search minimizes: val/bpb, or the loss of another objective."""
    from gptexp.sweep import job
    from gptexp.training.experiment import run_experiment

    if composed.sweep.job is not None:
        return job.run(Path(HydraConfig.get().sweep.dir), composed.sweep.job)
    config = to_config(composed)
    check_against_source(config)
    folder = Path(HydraConfig.get().runtime.output_dir)
    with one_line_errors():  # here, because Hydra reports exceptions that leave a job
        return run_experiment(config, folder).metrics[config.objective.best_by]
