"""Which steps the jobs of a sweep share, and the stored prefixes that jobs continue from (no torch).

Jobs with equal settings compute the same steps until their learning rates differ. The first of them to come there
stores its state below PREFIXES; another one continues from it instead of repeating the steps.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from gptexp.config.trajectory import Trajectory, trajectory
from gptexp.runs.layout import PREFIXES, has_checkpoint
from gptexp.sweep.plan import Job
from gptexp.sweep.store import Sweep
from gptexp.training.sharing import Other, Sharing


def trajectories(jobs: Sequence[Job], steps: Sequence[int | None]) -> list[Trajectory | None]:
    """Return what each job computes; None for a job that shares nothing, or whose length is not yet known."""
    return [None if n is None else trajectory(job.config, n) for job, n in zip(jobs, steps, strict=True)]


def _paths(sweep: Sweep) -> list[Trajectory | None]:
    return trajectories(sweep.jobs, [sweep.steps_of(job) for job in sweep.jobs])


def shared(of: Trajectory | None, by: Trajectory | None) -> int:
    """Return after how many steps of `of` the run `by` can start. It computes at least its last step itself."""
    return 0 if of is None or by is None else min(by.common(of), by.steps - 1)


def sharing_of(sweep: Sweep, number: int) -> Sharing | None:
    """Return what a job shares with other jobs of its sweep; None if nothing."""
    if not sweep.share or sweep.search is not None:
        return None
    paths, me = _paths(sweep), sweep.jobs[number]
    if (path := paths[number]) is None:
        return None
    starts = {shared(other, path) for i, other in enumerate(paths) if i != number} - {0}
    others = [
        _other(sweep, job, step)
        for i, job in enumerate(sweep.jobs)
        if i != number and (step := shared(path, paths[i])) and sweep.status(job) != "completed"
    ]
    if not starts and not others:
        return None
    folder = str((sweep.folder / PREFIXES).resolve())
    return Sharing(folder=folder, job=me.name, base=path.base, starts=sorted(starts, reverse=True), others=others)


def _other(sweep: Sweep, job: Job, step: int) -> Other:
    place, trainer = sweep.place(job).resolve(), job.config["trainer"]
    return Other(
        folder=str(place), step=step, log_every=trainer["log_every_steps"], val_every=trainer["val_every_steps"]
    )


def steps_to_compute(jobs: Sequence[Job], steps: Sequence[int]) -> list[int]:
    """Return the steps that each job computes if they run one after another. steps: their lengths."""
    paths = trajectories(jobs, steps)
    saved = [max((shared(earlier, path) for earlier in paths[:i]), default=0) for i, path in enumerate(paths)]
    return [n - m for n, m in zip(steps, saved, strict=True)]


def in_order(sweep: Sweep, numbers: Sequence[int]) -> list[int]:
    """Return jobs in an order that shares well, also in parallel: jobs that share are far apart, the shorter first."""
    paths = _paths(sweep)

    def rank(number: int) -> tuple[int, int]:
        path = paths[number]
        return (0 if path is None else path.steps, number)

    def turn(number: int) -> int:
        return sum(rank(other) < rank(number) and shared(paths[other], paths[number]) > 0 for other in numbers)

    return sorted(numbers, key=lambda number: (turn(number), number)) if sweep.share else list(numbers)


def tidy(sweep: Sweep) -> None:
    """Delete the stored prefixes that no job needs any more."""
    folder = sweep.folder / PREFIXES
    try:
        places = [] if folder.is_symlink() else list(folder.iterdir())
    except OSError:  # there is none, or another job deletes it at the same time
        return
    paths, needed = _paths(sweep), set[str]()
    for i, job in enumerate(sweep.jobs):
        path = paths[i]
        if path is not None and sweep.status(job) != "completed" and not has_checkpoint(sweep.place(job)):
            needed |= {path.key(step) for other in paths if other is not path and (step := shared(other, path))}
    for place in places:
        if place.name not in needed and not place.name.startswith("."):
            shutil.rmtree(place, ignore_errors=True)
    if not needed:
        shutil.rmtree(folder, ignore_errors=True)


def in_words(steps: Sequence[int], computed: Sequence[int]) -> str:
    """Return how many of the steps are computed: `1,836 of 2,800 steps (66%)`."""
    every, few = sum(steps), sum(computed)
    return f"{few:,} of {every:,} steps ({few / every:.0%})"
