"""`gptexp train -m …`: plan a sweep, store it, run its unfinished jobs with Hydra's launcher, and summarize."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from rich.console import Console

from gptexp.compose.overrides import quoted
from gptexp.compose.registry import STORED_JOB
from gptexp.config import Config
from gptexp.machine import job_slots
from gptexp.sweep.launchers import hand_out, launcher_of, require_scheduler
from gptexp.sweep.lengths import budgets, store
from gptexp.sweep.plan import SEARCH, Plan, is_search, natural_rates, plan, plan_of_one
from gptexp.sweep.progress import Progress, summary
from gptexp.sweep.share import in_order, in_words, steps_to_compute, tidy
from gptexp.sweep.store import Sweep, held, join, read
from gptexp.util.errors import ConfigError, one_line_errors
from gptexp.util.files import display_path
from gptexp.util.text import install_extra

FAILED = 1  # exit code if a job has failed


def main(overrides: list[str], task: Callable[..., Any]) -> None:
    """Run a sweep from the overrides of its command line; exit with 1 if a job has failed."""
    console = Console(highlight=False)
    with one_line_errors():
        overrides = [quoted(override, several=True) for override in overrides]
        launcher = launcher_of(overrides)
        if is_search(overrides) and find_spec("optuna") is None:
            raise ConfigError(f"{SEARCH}: Optuna is not installed; {install_extra('search')}")
        planned = plan(overrides)
        if planned.settings.dry_run and planned.search is not None:
            raise ConfigError("sweep.dry_run: a search chooses its jobs while it runs; use a sweep of listed values")
        if planned.settings.dry_run:
            from gptexp.sweep.probe import show

            show(planned, console)
            return
        require_scheduler(launcher)
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
                    _launch(sweep, planned, task)
            except SystemExit as stop:
                if stop.code not in (None, 0):
                    console.print(f"{_state(sweep)}; repeat the command line to continue", soft_wrap=True)
                raise
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


def _launch(sweep: Sweep, planned: Plan, task: Callable[..., Any]) -> None:
    """Have Hydra run the unfinished jobs by number; their settings are in sweep.yaml."""
    if launcher_of(planned.hydra) == "cores" and len(job_slots.gpus()) > 1:
        os.environ[job_slots.SHARED] = ",".join(job_slots.gpus())
    numbers = [] if sweep.search is not None else in_order(sweep, sweep.unfinished())
    needs_settings = any("${" in override for override in planned.hydra)  # it may refer to a setting
    config_name = "train" if needs_settings else STORED_JOB
    with Progress(sweep):
        hand_out(task, sweep.folder, numbers, planned.hydra, slots=job_slots.job_slots(), config_name=config_name)
