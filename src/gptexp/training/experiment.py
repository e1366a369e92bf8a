"""Train one experiment in its run folder, in this process or in several."""

from __future__ import annotations

from pathlib import Path

from gptexp.config import Config
from gptexp.machine import rank_environment, ranks
from gptexp.runs.result import Result, find_result
from gptexp.runs.writing import claim_run_folder
from gptexp.training.sharing import Sharing
from gptexp.training.worker import composition


def run_experiment(config: Config, folder: Path, *, sharing: Sharing | None = None) -> Result:
    """Train in a run folder and return the content of result.json.

    sharing: what a job of a sweep shares with others.
    """
    with claim_run_folder(folder, resumes=config.resume):
        from gptexp.machine import hardware  # torch is imported no earlier than here
        from gptexp.training import launch

        rank, processes = rank_environment.current(), hardware.processes_of(config)
        if rank is not None:
            config.require_divisible_batch(rank.size)
            ranks.send(ranks.COMPOSITION, composition(config, folder, sharing))
            ranks.connect()
        elif processes > 1:
            launch.start_ranks(config, folder, processes, sharing)
            return find_result(folder)
        from gptexp.training.run import train

        return train(config, folder, sharing)
