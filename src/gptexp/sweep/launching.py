"""`gptexp train -m …`: plan a sweep, store it, run its unfinished jobs with Hydra's launcher, and summarize."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from rich.console import Console

from gptexp.compose.hydra_versions import run_task
from gptexp.compose.overrides import quoted
from gptexp.compose.presets import conf_dir
from gptexp.compose.registry import STORED_JOB
from gptexp.config import Config
from gptexp.config.override_syntax import by_key, quote
from gptexp.machine import job_slots
from gptexp.sweep import job
from gptexp.sweep.lengths import budgets, store
from gptexp.sweep.plan import SEARCH, Plan, is_search, natural_rates, plan, plan_of_one
from gptexp.sweep.progress import Progress, summary
from gptexp.sweep.share import in_order, in_words, steps_to_compute, tidy
from gptexp.sweep.store import Sweep, held, join, read
from gptexp.util.errors import ConfigError, one_line_errors
from gptexp.util.files import display_path
from gptexp.util.text import install_extra

FAILED = 1  # exit code if a job has failed
NEEDS = {"cores": "hydra_plugins.hydra_joblib_launcher", "ray": "hydra_plugins.hydra_ray_launcher"} | dict.fromkeys(
    ("slurm", "submitit_local", "submitit_slurm"), "hydra_plugins.hydra_submitit_launcher"
)
SLURM = ("slurm", "submitit_slurm")
REMOTE = ("slurm", "submitit_slurm", "ray")  # launchers whose jobs may run on other machines


def main(overrides: list[str], task: Callable[..., Any]) -> None:
    """Run a sweep from the overrides of its command line; exit with 1 if a job has failed."""
    console = Console(highlight=False)
    with one_line_errors():
        overrides = [quoted(override, several=True) for override in overrides]
        launcher = _launcher(overrides)
        if is_search(overrides) and find_spec("optuna") is None:
            raise ConfigError(f"{SEARCH}: Optuna is not installed; {install_extra('search')}")
        planned = plan(overrides)
        if planned.settings.dry_run and planned.search is not None:
            raise ConfigError("sweep.dry_run: a search chooses its jobs while it runs; use a sweep of listed values")
        if planned.settings.dry_run:
            from gptexp.sweep.probe import show

            show(planned, console)
            return
        if launcher in SLURM and shutil.which("srun") is None:
            remedy = "start it on the login node of the cluster, or use hydra/launcher=cores"
            raise ConfigError(f"hydra/launcher={launcher}: this machine has no SLURM (no srun); {remedy}")
        with held(planned.folder):
            lengths = budgets(planned)
            sweep = join(planned)
            store(lengths)
            _announce(sweep, console)
            if len(rates := natural_rates(planned.jobs)) > 1:
                values = ", ".join(f"{rate:.1e}" for rate in rates)
                _notice(f"optimizer.lr=null depends on the model: {values}; set optimizer.lr to keep it fixed", console)
            if others := sweep.other_code():
                text = f"the code has changed since {len(others)} of the jobs were trained"
                _notice(f"{text}; sweep.code=strict refuses this", console)
            try:
                if sweep.unfinished() or sweep.search is not None:
                    _launch(sweep, planned, launcher, task)
            except SystemExit as stop:
                if stop.code not in (None, 0):
                    console.print(f"{_state(sweep)}; repeat the command line to continue", soft_wrap=True)
                raise
            finally:
                (sweep.folder / "multirun.yaml").unlink(missing_ok=True)  # written by Hydra; sweep.yaml replaces it
            tidy(sweep)
            failed = summary(read(sweep.folder), console)
    if failed:
        sys.exit(FAILED)


def show_one(config: Config) -> None:
    """Print the estimated cost of one run."""
    with one_line_errors():
        if config.resume is not None:
            raise ConfigError(f"dry_run=true: measures a run from its start; leave out resume={config.resume}")
        from gptexp.sweep.probe import show

        show(plan_of_one(config), Console(highlight=False))


def _launcher(overrides: list[str]) -> str:
    """Return the name of the launcher.

    Raises:
        ConfigError: its package is not installed.
    """
    name = by_key(overrides).get("hydra/launcher", "basic")
    package = NEEDS.get(name)
    if package is not None and find_spec("hydra_plugins") is not None and find_spec(package) is None:
        extra = "ray" if name == "ray" else "launchers"
        raise ConfigError(f"hydra/launcher={name}: its package is not installed; {install_extra(extra)}")
    return name


def _announce(sweep: Sweep, console: Console) -> None:
    console.print(f"sweep {sweep.name} · {_state(sweep)} · {display_path(sweep.folder)}", soft_wrap=True, markup=False)
    known = [(job, n) for job in sweep.jobs if (n := sweep.steps_of(job)) is not None]
    jobs, steps = [job for job, _ in known], [n for _, n in known]
    if sweep.share and (computed := steps_to_compute(jobs, steps)) != steps:
        console.print(f"equal first steps are shared: {in_words(steps, computed)} are computed", soft_wrap=True)


def _notice(text: str, console: Console) -> None:
    console.print(f"notice: {text}", soft_wrap=True, markup=False)


def _state(sweep: Sweep) -> str:
    done = len(sweep.jobs) - len(sweep.unfinished())
    return f"{sweep.total} {'jobs' if sweep.search is None else 'trials'}, {done} done"


def _launch(sweep: Sweep, planned: Plan, launcher: str, task: Callable[..., Any]) -> None:
    """Have Hydra run the unfinished jobs by number; their settings are in sweep.yaml."""
    if launcher not in REMOTE:
        os.environ[job.PARENT] = str(os.getpid())
        if launcher == "cores" and len(job_slots.gpus()) > 1:
            os.environ[job_slots.SHARED] = ",".join(job_slots.gpus())
    place = [f"hydra.sweep.dir={quote(str(sweep.folder))}", "hydra.sweep.subdir=."]
    order = ",".join(map(str, in_order(sweep, sweep.unfinished())))
    numbers = [] if sweep.search is not None else [f"sweep.job={order}"]
    sys.argv[1:] = ["-m", *place, *numbers, *_limits(launcher, planned.hydra), *planned.hydra]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # ray.yaml is intentionally checked by the plug-in's schema of the same name.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/ray' is validated against")
    needs_settings = any("${" in override for override in planned.hydra)  # it may refer to a setting
    with Progress(sweep):
        run_task(task, str(conf_dir()), "train" if needs_settings else STORED_JOB)


def _limits(launcher: str, given: list[str]) -> list[str]:
    """Return limits for submitit's local executor, which starts all jobs at once and ends each after an hour."""
    if launcher != "submitit_local":
        return []
    defaults = {"hydra.sweeper.max_batch_size": str(job_slots.job_slots()), "hydra.launcher.timeout_min": "10080"}
    keys = by_key(given)
    return [f"{key}={value}" for key, value in defaults.items() if key not in keys]
