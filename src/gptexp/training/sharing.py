"""Which first steps a job of a sweep shares with other jobs, as the sweep tells the training. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gptexp.runs.layout import has_checkpoint
from gptexp.runs.result import is_finished


@dataclass(frozen=True, kw_only=True)
class Other:
    """Another job, which could start from the state of this one after `step` steps.

    folder: its run folder. log_every, val_every: the steps at which it logs and validates.
    """

    folder: str
    step: int
    log_every: int
    val_every: int

    def waits(self) -> bool:
        """Return whether the job has not started, so that a stored prefix helps it."""
        return not has_checkpoint(Path(self.folder)) and not is_finished(Path(self.folder))


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """What a job shares.

    folder: where prefixes are stored. job: its name. base: hash of the settings that determine its steps.
    starts: the steps from which it can continue another job, the largest first. others: the jobs that can continue it.
    """

    folder: str
    job: str
    base: str
    starts: list[int]
    others: list[Other]

    @property
    def last(self) -> int:
        """The last step after which another job can continue this one."""
        return max((other.step for other in self.others), default=0)

    def as_plain(self) -> dict[str, Any]:
        return asdict(self)


def from_plain(stored: Mapping[str, Any] | None) -> Sharing | None:
    """Return what `Sharing.as_plain` made."""
    if stored is None:
        return None
    return Sharing(**{**stored, "others": [Other(**other) for other in stored["others"]]})
