"""python -m gptexp.train [group=option] [key=value] …: train one GPT experiment, or with -m a sweep."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gptexp import cli
from gptexp.compose import to_config
from gptexp.runs import COMMAND, RESULT, command_line, open_run
from gptexp.schemas import conf_dir, register_schemas
from gptexp.source import check_against_source


def task(composed: DictConfig) -> float | None:
    """One job: composed settings in, val/bpb out (what a search minimises)."""
    config = to_config(composed)
    check_against_source(config)
    folder = Path(HydraConfig.get().runtime.output_dir)
    with cli.one_line_errors():  # in here, because Hydra announces what escapes from a job
        return run(config, folder)["metrics"]["val/bpb"]


def run(config: Any, folder: Path) -> dict[str, Any]:
    """Train in a run folder of its own; torch is imported no earlier than here."""
    with open_run(folder, resumes=config.resume):
        from gptexp import hardware, launch

        processes = hardware.devices_of(config)
        if processes > 1 and not launch.inside_rank():
            import json

            launch.start_ranks(config, folder, processes)
            return json.loads((folder / RESULT).read_text(encoding="utf-8"))
        from gptexp.training import train

        return train(config, folder)


def main() -> None:
    """The door: refuse a wrong command line at once, then let Hydra run the job or the sweep."""
    register_schemas()
    os.environ[COMMAND] = command_line()
    sys.argv[1:] = cli.checked_arguments(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us, not Hydra's own reporter
    with cli.one_line_errors():
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(task)()


if __name__ == "__main__":
    main()
