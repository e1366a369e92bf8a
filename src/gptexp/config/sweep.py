"""Settings of a sweep as a whole; those of its jobs are the experiment's."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gptexp.config.rules import require, require_at_least

OtherCode = Enum("OtherCode", ["notice", "strict"])


@dataclass(kw_only=True, slots=True)
class SweepConfig:
    """How the jobs of `-m` are kept and run. Nothing here changes what a job computes."""

    name: str | None = None  # folder under logs/sweeps/; null: the swept keys and a hash of what is fixed
    retries: int = 0  # how often a failed job is tried again at once; the same command line tries it again anyway
    overwrite: bool = False  # put a changed sweep's old results aside instead of refusing
    code: OtherCode = OtherCode.notice  # what follows if jobs were trained by other code: a notice, or strict: an error
    dry_run: bool = False  # say what would run, from a short measured probe, and start nothing
    n_trials: int = 30  # of a search, in all, those of earlier starts included
    job: int | None = None  # set by the sweep itself: which stored job a process runs

    def __post_init__(self) -> None:
        require_at_least(0, "sweep", self, "retries", "job")
        require_at_least(1, "sweep", self, "n_trials")
        require(self.name is None or bool(self.name.strip()), "sweep.name", self.name, "must not be empty, or null")
