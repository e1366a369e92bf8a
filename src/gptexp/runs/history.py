"""What a run was trained with, from step to step: the code and the learning rates (no torch).

A segment is plain data, stored in checkpoints and in result.json:

    from, to     the steps that it covers: from the first one, counted from 0, to the one before `to`
    code_sha256  of the code that trained (gptexp.runs.code_hash); null where that is not known
    peak_lr      what the schedule multiplies
    max_steps    the length that the schedule was made for
    schedule     its settings, with the steps of warm-up as a number
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gptexp.config import KINDS, Config
from gptexp.config.schedule import lr_multiplier, warmup_steps
from gptexp.config.training import ScheduleConfig

Segment = dict[str, Any]
KEYS = {"from": int, "to": int, "peak_lr": float, "max_steps": int, "schedule": dict}
MOST_PROBED = 20_000  # steps of a segment up to which each step is compared


@dataclass(frozen=True)
class History:
    """The segments before this process, and the one that it adds."""

    before: list[Segment]
    own: Segment

    def until(self, step: int) -> list[Segment]:
        """All segments of the run, up to a step; what went on unchanged is one segment."""
        own = {**self.own, "to": step}
        if self.before and _constants(self.before[-1]) == _constants(own):
            return [*self.before[:-1], {**own, "from": self.before[-1]["from"]}]
        return [*self.before, *([own] if step > own["from"] else [])]

    @property
    def former_code(self) -> str | None:
        """The hash of the code before this process, where it is known and differs from this one's."""
        former = self.before[-1]["code_sha256"] if self.before else None
        return former if former != self.own["code_sha256"] else None


def _constants(segment: Segment) -> Segment:
    return {key: value for key, value in segment.items() if key not in ("from", "to")}


def segment(config: Config, first: int, last: int, code_sha256: str | None) -> Segment:
    """The steps from `first` to before `last` of a run with these settings."""
    steps = config.trainer.max_steps
    schedule = asdict(config.schedule) | {"warmup_steps": warmup_steps(config.schedule, steps)}
    rates = {"peak_lr": float(config.lr), "max_steps": steps, "schedule": schedule}
    return {"from": first, "to": last, "code_sha256": code_sha256, **rates}


def checked(stored: object) -> list[Segment]:
    """The segments that a file holds.

    Raises:
        ValueError: they are no segments that follow each other.
    """
    if not isinstance(stored, list) or not all(isinstance(part, dict) for part in stored):
        raise ValueError("its history is no list of segments")
    for part, former in zip(stored, [{"to": 0}, *stored], strict=False):
        wrong = next((key for key, kind in KEYS.items() if type(part.get(key)) is not kind), None)
        if wrong or not former["to"] == part["from"] <= part["to"] < 2**63 or not _is_code(part.get("code_sha256")):
            raise ValueError(f"its history has a wrong {wrong or 'segment'}")
        _schedule(part)
    return stored


def _is_code(value: object) -> bool:
    return value is None or isinstance(value, str)


def extension(history: Sequence[Segment]) -> str | None:
    """Where the run's learning rates left those of a straight run of its length; None where they never did.

    The straight run has the schedule of the last segment. Only rates count: a constant rate may go on for any
    number of steps, and a WSD schedule may be extended before its decay.
    """
    left = [part for part in history[:-1] if not _same_rates(part, history[-1])]
    return ", ".join(f"at step {part['to']} of {part['max_steps']}" for part in left) or None


def _same_rates(part: Segment, straight: Segment) -> bool:
    a, b = _schedule(part), _schedule(straight)
    return all(
        part["peak_lr"] * lr_multiplier(a, part["max_steps"], step)
        == straight["peak_lr"] * lr_multiplier(b, straight["max_steps"], step)
        for step in _probed(part["from"], part["to"])
    )


def _probed(first: int, last: int) -> Iterable[int]:
    """Every step; of a very long segment its two ends, where warm-up and decay lie, and a grid between them."""
    if last - first <= MOST_PROBED:
        return range(first, last)
    edge = MOST_PROBED // 4
    grid = range(first + edge, last - edge, (last - first) // edge)
    return [*range(first, first + edge), *grid, *range(last - edge, last)]


def _schedule(part: Mapping[str, Any]) -> ScheduleConfig:
    settings = part["schedule"]
    schema = KINDS["schedule"].get(str(settings.get("kind")))
    if schema is None:
        raise ValueError(f"its history has an unknown schedule {settings.get('kind')}")
    try:
        return schema(**settings)
    except TypeError as error:
        raise ValueError(f"its history has a wrong schedule: {error}") from None
