"""The number of steps that all seeds of a configuration share, and its files in the folder of a sweep."""

from __future__ import annotations

from pathlib import Path

from gptexp.compose.composition import config_from_plain
from gptexp.config.fingerprint import identity
from gptexp.config.length import asked
from gptexp.config.override_syntax import by_key
from gptexp.runs.layout import RESOLUTIONS
from gptexp.sweep.plan import Job, Plan
from gptexp.training.length import Length, read_steps, write_steps
from gptexp.util.files import make_folder


def resolution_of(folder: Path, job: Job) -> Path:
    """Return the file in the folder of a sweep in which the job's configuration has its number of steps."""
    swept = [key for key in by_key(job.overrides) if key != "seed"]
    return folder / RESOLUTIONS / f"{identity(job.config, also=swept)}.json"


def budgets(plan: Plan) -> dict[Path, Length]:
    """Return the length of every configuration that is not stored, by file; a time is measured by the first job.

    Raises:
        ValueError: a length that a model or a schedule cannot have.
    """
    jobs = {
        resolution_of(plan.folder, job): config_from_plain(job.config)
        for job in plan.jobs
        if asked(job.config["trainer"]).keys().isdisjoint({"max_steps", "max_time"})
    }
    waiting = {path: config for path, config in jobs.items() if read_steps(path, config.trainer.length) is None}
    if not waiting:
        return {}
    from gptexp.training.basis import basis_of, length_of  # imports torch

    return {path: length_of(config, basis_of(config)) for path, config in waiting.items()}


def store(lengths: dict[Path, Length]) -> None:
    """Store the lengths for the jobs."""
    for path, length in lengths.items():
        make_folder(path.parent)
        write_steps(path, length)
