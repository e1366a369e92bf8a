"""The code and the learning rates that trained a run, step by step (no torch)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

from gptexp.config import KINDS, Config
from gptexp.config.schedule import lr_multiplier, warmup_steps
from gptexp.config.training import ScheduleConfig

# A stretch of steps that one version of the code trained with one schedule, as checkpoints and result.json store it:
#     from, to     its steps, counted from 0, without `to` itself
#     code_sha256  hash of the code (gptexp.runs.code_hash); None if unknown
#     peak_lr      learning rate that the schedule multiplies
#     max_steps    length that the schedule was made for
#     schedule     its settings, with the steps of warm-up as a number
Segment = TypedDict(
    "Segment",
    {"from": int, "to": int, "code_sha256": str | None, "peak_lr": float, "max_steps": int, "schedule": dict[str, Any]},
)
KEYS = {"from": int, "to": int, "peak_lr": float, "max_steps": int, "schedule": dict}
MOST_PROBED = 20_000  # the steps of a longer segment are sampled when two schedules are compared


@dataclass(frozen=True)
class History:
    """The segments before this process, and the one that this process adds."""

    before: list[Segment]
    current: Segment

    def until(self, step: int) -> list[Segment]:
        """Return all segments up to a step; adjacent ones with equal code and schedule are merged."""
        current: Segment = {**self.current, "to": step}
        if self.before and _constants(self.before[-1]) == _constants(current):
            return [*self.before[:-1], {**current, "from": self.before[-1]["from"]}]
        return [*self.before, *([current] if step > current["from"] else [])]

    @property
    def former_code(self) -> str | None:
        """The hash of the code before this process; None if it is unknown or unchanged."""
        former = self.before[-1]["code_sha256"] if self.before else None
        return former if former != self.current["code_sha256"] else None


def _constants(segment: Segment) -> dict[str, Any]:
    return {key: value for key, value in segment.items() if key not in ("from", "to")}


def segment(config: Config, max_steps: int, first: int, last: int, code_sha256: str | None) -> Segment:
    """Return the segment of the steps `first` to `last` - 1 of a run of `max_steps` with these settings."""
    return {
        "from": first,
        "to": last,
        "code_sha256": code_sha256,
        "peak_lr": float(config.lr),
        "max_steps": max_steps,
        "schedule": asdict(config.schedule) | {"warmup_steps": warmup_steps(config.schedule, max_steps)},
    }


def checked(stored: object) -> list[Segment]:
    """Return the segments that a file contains.

    Raises:
        ValueError: they are not segments, or they leave a gap.
    """
    if not isinstance(stored, list) or not all(isinstance(part, dict) for part in stored):
        raise ValueError("its history is not a list of segments")
    end = 0
    for part in stored:
        wrong = next((key for key, kind in KEYS.items() if type(part.get(key)) is not kind), None)
        if wrong or not end == part["from"] <= part["to"] < 2**63 or not _is_code(part.get("code_sha256")):
            raise ValueError(f"its history has a wrong {wrong or 'segment'}")
        _schedule(part)
        end = part["to"]
    return stored


def _is_code(value: object) -> bool:
    return value is None or isinstance(value, str)


def extension(history: Sequence[Segment]) -> str | None:
    """Return where the run's learning rates differ from those of an uninterrupted run of its length; None if nowhere.

    The uninterrupted run has the schedule of the last segment. Only the rates count: a constant rate may be continued
    for any number of steps, and a WSD schedule may be extended before its decay.
    """
    changed = [part for part in history[:-1] if not _same_rates(part, history[-1])]
    return ", ".join(f"at step {part['to']} of {part['max_steps']}" for part in changed) or None


def _same_rates(part: Segment, last: Segment) -> bool:
    a, b = _schedule(part), _schedule(last)
    if a is None or b is None:
        names = ("peak_lr", "max_steps", "schedule")
        return all(part[name] == last[name] for name in names)  # type: ignore[literal-required]
    return all(
        part["peak_lr"] * lr_multiplier(a, part["max_steps"], step)
        == last["peak_lr"] * lr_multiplier(b, last["max_steps"], step)
        for step in _probed(part["from"], part["to"])
    )


def _probed(first: int, last: int) -> Iterable[int]:
    """Return every step; of a long segment both ends, where warm-up and decay are, and a grid between them."""
    if last - first <= MOST_PROBED:
        return range(first, last)
    edge = MOST_PROBED // 4
    grid = range(first + edge, last - edge, (last - first) // edge)
    return [*range(first, first + edge), *grid, *range(last - edge, last)]


def _schedule(part: Mapping[str, Any]) -> ScheduleConfig | None:
    """Return the schedule; None if its kind comes from a package that is not installed."""
    settings = part["schedule"]
    schema = KINDS["schedule"].get(str(settings.get("kind")))
    if schema is None:
        return None
    try:
        schedule = schema(**settings)
    except TypeError as error:
        raise ValueError(f"its history has a wrong schedule: {error}") from None
    assert isinstance(schedule, ScheduleConfig)
    return schedule
