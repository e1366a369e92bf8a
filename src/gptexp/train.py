"""python -m gptexp.train [group=option] [key=value] …: train one GPT experiment, or with -m a sweep."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gptexp import cli, rank_environment, ranks, worker
from gptexp.compose import to_config
from gptexp.entry import entry_point
from gptexp.hydra_versions import run_task
from gptexp.output import outlive_readers
from gptexp.runs import COMMAND, command_line, open_run, read_result
from gptexp.schemas import conf_dir, register_schemas, to_plain
from gptexp.source import check_against_source
from gptexp.sweep import door, job


def task(composed: DictConfig) -> float | None:
    """One job: composed settings in, what a search minimises out: val/bpb, or another objective's loss."""
    config = to_config(composed)
    if config.sweep.job is not None:
        return job.run(Path(HydraConfig.get().sweep.dir), config.sweep.job)
    check_against_source(config)
    folder = Path(HydraConfig.get().runtime.output_dir)
    with cli.one_line_errors():  # in here, because Hydra announces what escapes from a job
        return run(config, folder)["metrics"][config.objective.best_by]


def run(config: Any, folder: Path) -> dict[str, Any]:
    """Train in a run folder of its own; torch is imported no earlier than here."""
    with open_run(folder, resumes=config.resume):
        from gptexp import hardware, launch

        who, processes = rank_environment.current(), hardware.processes_of(config)
        if who is not None:
            config.require_divisible_batch(who.size)
            ranks.tell(ranks.COMPOSITION, {"config": to_plain(config), "folder": str(folder.resolve())})
            ranks.connect()
        elif processes > 1:
            launch.start_ranks(config, folder, processes)
            return read_result(folder)
        from gptexp.training import train

        return train(config, folder)


@entry_point
def main() -> None:
    """The door: refuse a wrong command line at once, then let Hydra run the job or the sweep."""
    outlive_readers()
    with cli.one_line_errors():
        who = rank_environment.started()
    if who is None:
        lead()
        return
    with ranks.ending_whole():
        if cli.sweep_overrides(sys.argv[1:]) is not None:
            _refuse_sweep(who)
        if who.rank > 0:
            worker.follow()
            return
        with cli.one_line_errors():
            ranks.serve()
        lead()


def _refuse_sweep(who: rank_environment.Rank) -> None:
    if who.rank == 0:
        cli.fail(
            "-m: a sweep starts the ranks of its jobs itself; run it once, without torchrun or srun "
            "(where there is neither: unset RANK and WORLD_SIZE)"
        )
    sys.exit(cli.USER_ERROR)


def lead() -> None:
    """Compose, check and run, as the only process or as rank 0."""
    register_schemas()
    os.environ[COMMAND] = command_line()
    if (overrides := cli.sweep_overrides(sys.argv[1:])) is not None:
        door.main(overrides, task)
        return
    sys.argv[1:], config = cli.checked_command(sys.argv[1:])
    if config is not None and config.sweep.dry_run:
        door.show_one(config)
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us, not Hydra's own reporter
    with cli.one_line_errors():
        run_task(task, str(conf_dir()), "train")


if __name__ == "__main__":
    main()
