"""Train one experiment in its run folder, in this process or in several."""

from __future__ import annotations

from pathlib import Path

from gptexp.config import Config
from gptexp.config.conversion import to_plain
from gptexp.machine import rank_environment, ranks
from gptexp.runs.result import Result, find_result
from gptexp.runs.writing import claim_run_folder
from gptexp.training.sharing import Sharing
from gptexp.util.quick_imports import without_collection


def run_experiment(
    config: Config,
    folder: Path,
    *,
    steps: int | None = None,
    resolution: Path | None = None,
    sharing: Sharing | None = None,
) -> Result:
    """Train in a run folder and return the content of result.json.

    Args:
        config: the settings.
        folder: the run folder.
        steps: the number of steps of the whole run, if the caller has resolved it; None: it follows from the settings.
        resolution: a file in which the runs of a configuration share the number that trainer.max_time gives.
        sharing: what a job of a sweep shares with others.
    """
    with claim_run_folder(folder, resumes=config.resume):
        with without_collection():
            from gptexp.machine import hardware  # torch is imported no earlier than here
            from gptexp.training import launch

        composition = launch.Composition(
            config=to_plain(config),
            folder=str(folder.resolve()),
            steps=steps,
            resolution=None if resolution is None else str(resolution.resolve()),
            sharing=None if sharing is None else sharing.as_plain(),
        )
        rank, processes = rank_environment.current(), hardware.processes_of(config)
        if rank is not None:
            config.require_divisible_batch(rank.size)
            ranks.send(ranks.COMPOSITION, composition)
            ranks.connect()
        elif processes > 1:
            launch.start_ranks(composition, folder, processes)
            return find_result(folder)
        with without_collection():
            from gptexp.training.run import train

        return train(config, folder, steps=steps, resolution=resolution, sharing=sharing)
