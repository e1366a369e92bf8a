"""Train one experiment in its run folder, in this process or in several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gptexp.config import Config
from gptexp.config.conversion import to_plain
from gptexp.machine import rank_environment, ranks
from gptexp.runs.result import read_result
from gptexp.runs.writing import open_run


def run_experiment(config: Config, folder: Path) -> dict[str, Any]:
    """Train in a run folder and return the content of result.json."""
    with open_run(folder, resumes=config.resume):
        from gptexp.machine import hardware  # torch is imported no earlier than here
        from gptexp.training import launch

        rank, processes = rank_environment.current(), hardware.processes_of(config)
        if rank is not None:
            config.require_divisible_batch(rank.size)
            ranks.tell(ranks.COMPOSITION, {"config": to_plain(config), "folder": str(folder.resolve())})
            ranks.connect()
        elif processes > 1:
            launch.start_ranks(config, folder, processes)
            return read_result(folder)
        from gptexp.training.run import train

        return train(config, folder)
