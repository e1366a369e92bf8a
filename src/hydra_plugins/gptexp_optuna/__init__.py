"""The Optuna sweeper as a Hydra plug-in, which Hydra finds in this namespace; see gptexp.sweep.search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaSweeper(Sweeper):
    """A sweeper whose jobs Optuna chooses and Hydra's launcher runs."""

    def __init__(self, params: Any = None) -> None:
        self.params = params  # the search space, which gptexp.sweep.plan reads and stores

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.folder = Path(config.hydra.sweep.dir)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        assert launcher is not None
        self.run_jobs = launcher.launch
        launcher_settings = config.hydra.launcher
        self.at_a_time = launcher_settings.get("n_jobs") or launcher_settings.get("array_parallelism") or 1

    def sweep(self, arguments: list[str]) -> None:
        from gptexp.machine.job_slots import job_slots
        from gptexp.sweep import search

        def launch(numbers: list[int]) -> None:
            for job in self.run_jobs([[f"sweep.job={n}"] for n in numbers], initial_job_idx=numbers[0]):
                _ = job.return_value  # raises the job's exception

        search.run(self.folder, launch, self.at_a_time if self.at_a_time > 0 else job_slots())  # -1: all cores


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="optuna",
    node={"_target_": "hydra_plugins.gptexp_optuna.OptunaSweeper", "params": None},
    provider="gptexp",
)
