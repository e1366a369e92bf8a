"""`sweep.dry_run=true`: the estimated cost of every job, from a few measured steps; nothing is started or stored."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gptexp.compose.composition import config_from_plain
from gptexp.config import Config
from gptexp.config.length import LENGTHS, seconds_of
from gptexp.runs.layout import CHECKPOINTS, LAST, METRICS
from gptexp.sweep.plan import Job, Plan
from gptexp.sweep.share import in_words, steps_to_compute
from gptexp.training.callbacks.progress import duration
from gptexp.training.experiment import run_experiment
from gptexp.training.length import Cost, affordable
from gptexp.util.files import display_path, read_rows
from gptexp.util.text import clock, quantity

STEPS = 6  # the first half warms up


@dataclass(frozen=True, slots=True)
class Measurement:
    """Speed and size of a job. bytes: disk space of its checkpoints."""

    tokens_per_second: float
    tokens_per_step: float
    parameters: int
    trainable: int
    flops_per_token: float
    bytes: int

    def steps_of(self, config: Config) -> int:
        """Return the steps of a run. Within trainer.max_time validation is not counted, as in the estimated time."""
        if config.trainer.max_time is not None:
            seconds = seconds_of(config.trainer.max_time)
            return max(1, round(seconds * self.tokens_per_second / self.tokens_per_step))
        cost = Cost(
            tokens_per_step=round(self.tokens_per_step), flops_per_token=self.flops_per_token, trainable=self.trainable
        )
        return affordable(config, cost)


def show(plan: Plan, console: Console) -> None:
    """Print a row for each job, and the sums."""
    table = Table("job", "parameters", "tokens", "FLOPs", "time", "disk")
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
    times, steps, size = list[float](), list[int](), 0.0
    measured: dict[str, Measurement] = {}
    with console.status("") as status:
        for number, job in enumerate(plan.jobs, 1):
            status.update(f"measuring {number} of {len(plan.jobs)}")
            key = _speed_key(job)
            if key not in measured:
                measured[key] = measure(job.config)
            probe = measured[key]
            tokens = probe.steps_of(config_from_plain(job.config)) * probe.tokens_per_step
            time = tokens / probe.tokens_per_second
            times.append(time)
            steps.append(max(1, round(tokens / probe.tokens_per_step)))
            size += probe.bytes
            flops = tokens * probe.flops_per_token
            row = [quantity(probe.parameters), quantity(tokens), f"{flops:.1e}", clock(time)]
            table.add_row(Text(job.name), *row, _bytes(probe.bytes))
    console.print(table)
    one, whole = len(plan.jobs) == 1, duration(sum(times))
    jobs = f"1 run · {whole}" if one else f"{len(plan.jobs)} jobs · {whole} one after another"
    computed = steps_to_compute(plan.jobs, steps) if plan.settings.share else steps
    if computed != steps:
        shared = sum(time * few / n for time, few, n in zip(times, computed, steps, strict=True))
        words = f"{in_words(steps, computed)} are computed · {duration(shared)}"
        console.print(f"equal first steps are shared: {words}; sweep.share=false computes all", soft_wrap=True)
    console.print(
        f"{jobs} on this machine, without validation · {_bytes(size)} below {display_path(plan.folder)}\n"
        "nothing was started; leave out dry_run to start",
        soft_wrap=True,
        markup=False,
    )


def _speed_key(job: Job) -> str:
    """Return a key of all settings that the speed of a step depends on."""
    settings = copy.deepcopy(job.config)
    for name in ("seed", "name", "schedule"):
        settings.pop(name)
    settings["optimizer"] = settings["optimizer"]["kind"]
    for name in LENGTHS:
        settings["trainer"].pop(name)
    return json.dumps(settings, sort_keys=True, default=str)


def measure(settings: dict[str, Any]) -> Measurement:
    """Train a few steps in a temporary folder.

    Raises:
        ValueError: the job cannot be trained.
    """
    short = copy.deepcopy(settings)
    short["trainer"] |= dict.fromkeys(LENGTHS) | {"max_steps": STEPS}
    short["trainer"] |= {"val_every_steps": STEPS, "log_every_steps": STEPS // 2}
    short["schedule"]["warmup_steps"] = None
    short["callbacks"]["samples"]["tokens"] = short["callbacks"]["novelty"]["samples"] = 0
    short["logger"] |= {"tensorboard": False, "plugins": {}}  # a service would show it as a run
    with tempfile.TemporaryDirectory(prefix="gptexp-probe-") as place, contextlib.redirect_stdout(io.StringIO()):
        run = Path(place) / "run"
        result = run_experiment(config_from_plain(short), run)
        rows = read_rows(run / METRICS)
        last = (run / CHECKPOINTS / LAST).stat().st_size
    rate = float(rows[-1]["tokens_per_second"])  # of the second half
    assert result.tokens
    assert result.steps
    assert result.parameters
    assert result.trainable_parameters
    assert result.flops_per_token is not None
    return Measurement(
        tokens_per_second=rate,
        tokens_per_step=result.tokens / result.steps,
        parameters=result.parameters,
        trainable=result.trainable_parameters,
        flops_per_token=result.flops_per_token,
        bytes=3 * last,  # last, previous and best, which is usually another step
    )


def _bytes(size: float) -> str:
    return f"{quantity(size)}B".replace("kB", " kB")
