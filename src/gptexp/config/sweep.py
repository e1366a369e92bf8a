"""Settings of a sweep as a whole. The settings of its jobs are those of an experiment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gptexp.config.rules import require, require_at_least

OtherCode = Enum("OtherCode", ["notice", "strict"])


@dataclass(kw_only=True, slots=True)
class SweepConfig:
    """How the jobs of `-m` are stored and run. No setting here changes what a job computes."""

    name: str | None = None
    """Name of the folder below logs/sweeps/. null: the swept settings and a hash of the fixed ones."""
    retries: int = 0
    """How often a failed job is retried at once. Repeating the command retries failed jobs in any case."""
    overwrite: bool = False
    """Whether a changed sweep moves the old results aside. false: it is refused."""
    code: OtherCode = OtherCode.notice
    """What happens if stored jobs were trained by another version of the code. strict: an error."""
    share: bool = True
    """Whether jobs whose first steps are equal compute them once. Results do not depend on it."""
    dry_run: bool = False
    """Print the jobs and their cost, estimated from a short measured probe, and start nothing."""
    n_trials: int = 30
    """Total number of trials of a hyperparameter search, including those of earlier starts."""
    job: int | None = None
    """Index of the stored job that this process runs. The sweep sets it; do not set it."""

    def __post_init__(self) -> None:
        require_at_least(0, "sweep", self, "retries", "job")
        require_at_least(1, "sweep", self, "n_trials")
        require(self.name is None or bool(self.name.strip()), "sweep.name", self.name, "must not be empty; use null")
