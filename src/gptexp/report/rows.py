"""The rows of a comparison: one a configuration, with its seeds, its interval and what is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from gptexp.config.fingerprint import DEFAULT_KINDS, settings_that_matter
from gptexp.report import naming, statistics, typed
from gptexp.report.budget import Reading
from gptexp.report.comparable import key_of
from gptexp.report.reading import LeftOut
from gptexp.report.statistics import Difference, Interval


@dataclass(kw_only=True, eq=False)
class Row:
    """One configuration: its readings by seed, and what they say.

    missing: its runs that were left out or diverged, unless another run with that seed takes part.
    best: mean over seeds of the best value on the way. p: Holm-corrected.
    presets: those that its runs were started with, by group: model as mini_gpt.
    """

    settings: dict[str, Any]
    readings: list[Reading]
    missing: list[LeftOut]
    interval: Interval
    best: float | None
    presets: dict[str, str] = field(default_factory=dict)
    label: str = ""
    difference: Difference | None = None
    p: float | None = None

    @property
    def values(self) -> dict[int, float]:
        """The metric by seed."""
        return {reading.run.seed: reading.value for reading in self.readings}

    def mean(self, cost: str) -> float | None:
        """The mean over seeds of a cost: tokens, flops, nbytes, seconds or steps."""
        known = [getattr(reading, cost) for reading in self.readings]
        return fmean(known) if known and None not in known else None

    @property
    def parameters(self) -> int | None:
        return self.readings[0].run.parameters if self.readings else None

    @property
    def tokens_per_second(self) -> float | None:
        return fmean(reading.run.tokens_per_second for reading in self.readings) if self.readings else None


def make_rows(
    readings: Sequence[Reading],
    left_out: Sequence[LeftOut],
    broken: Sequence[LeftOut],
    also: Sequence[str],
    method: str,
) -> list[Row]:
    """A row for each configuration that has a reading, or whose runs all diverged (`broken`)."""
    groups: dict[str, list[Reading]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for reading in readings:
        key = key_of(reading.run.settings, also)
        groups.setdefault(key, []).append(reading)
        settings[key] = _said(reading.run.settings, also)
    for lost in broken:
        key = key_of(lost.settings or {}, also)
        groups.setdefault(key, [])
        settings[key] = _said(lost.settings or {}, also)
    return [
        _row(settings[key], group, _missing(key, group, left_out, also), _folders(key, group, broken, also), method)
        for key, group in groups.items()
    ]


def _folders(key: str, group: Sequence[Reading], broken: Sequence[LeftOut], also: Sequence[str]) -> list[Path]:
    """The runs of a configuration, diverged ones too."""
    own = [lost.folder for lost in broken if key_of(lost.settings or {}, also) == key]
    return [*(reading.run.folder for reading in group), *own]


def _said(settings: dict[str, Any], also: Sequence[str]) -> dict[str, Any]:
    """The settings of a row; what goes without saying is said, beside rows where it is otherwise."""
    kinds = {f"{group}.kind": settings.get(f"{group}.kind", kind) for group, kind in DEFAULT_KINDS.items()}
    return settings_that_matter(settings, also) | kinds


def _missing(key: str, group: Sequence[Reading], left_out: Sequence[LeftOut], also: Sequence[str]) -> list[LeftOut]:
    """The runs of a configuration that were left out, unless another run with that seed takes part."""
    seeds = {reading.run.seed for reading in group}
    own = [lost for lost in left_out if lost.settings is not None and key_of(lost.settings, also) == key]
    return [lost for lost in own if lost.settings is not None and lost.settings.get("seed") not in seeds]


def _row(
    settings: dict[str, Any], group: Sequence[Reading], missing: list[LeftOut], folders: Sequence[Path], method: str
) -> Row:
    group = sorted(group, key=lambda reading: reading.run.seed)
    best = [reading.best for reading in group]
    return Row(
        settings=settings,
        readings=group,
        missing=missing,
        interval=statistics.interval([reading.value for reading in group], method),
        best=fmean(best) if best and all(map(math.isfinite, best)) else None,
        presets=typed.presets(folders),
    )


def named_and_sorted(
    rows: Sequence[Row], by: Sequence[str], swept: Sequence[str]
) -> tuple[list[Row], list[str], list[str]]:
    """The rows in order, each with its label; the settings that tell them apart, and those that vary along.

    swept: keys that were typed to tell the runs apart; they come after `by`.
    """
    rows = sorted(rows, key=lambda row: min((typed.rank(reading.run.folder) for reading in row.readings), default=0))
    for group in _telling_presets(rows):
        for row in rows:
            row.settings = {group: row.presets[group], **row.settings}
    configurations = [row.settings for row in rows]
    varied = naming.differing(configurations)
    first = dict.fromkeys([*by, *(key for key in swept if key in varied), *(key for key in varied if "." not in key)])
    keys, along = naming.telling(configurations, list(first))
    rows = [rows[index] for index in naming.in_order(configurations, keys)]
    for row in rows:
        row.label = naming.label(row.settings, keys)
    if len(rows) == 1:
        rows[0].label = _of_one(rows[0], swept)
    return rows, keys, along


def _telling_presets(rows: Sequence[Row]) -> list[str]:
    """The groups of which each row was started with a preset, and not all with the same."""
    shared = set.intersection(*(set(row.presets) for row in rows)) if rows else set()
    return [group for group in typed.GROUPS if group in shared and len({row.presets[group] for row in rows}) > 1]


def _of_one(row: Row, swept: Sequence[str]) -> str:
    """The only configuration, by what was typed to tell it from others that are to come."""
    keys = [key for key in swept if key in row.settings or key in row.presets]
    return naming.label({**row.presets, **row.settings}, keys) if keys else naming.ONLY


def relabelled(rows: Sequence[Row], baseline: Row, keys: Sequence[str]) -> list[Row]:
    """The rows of an ablation: the baseline first, and the others called by what they change in it."""
    others = [row for row in rows if row is not baseline]
    labels = [naming.label(row.settings, naming.changed(row.settings, baseline.settings, keys)) for row in others]
    if len(set(labels)) == len(others):
        baseline.label = naming.BASELINE
        for row, label in zip(others, labels, strict=True):
            row.label = label
    return [baseline, *others]


def compare_to(rows: Sequence[Row], baseline: Row) -> None:
    """Fill in each row's difference to the baseline, with p-values that are corrected together."""
    others = [row for row in rows if row is not baseline and row.readings]
    differences = [statistics.difference(row.values, baseline.values) for row in others]
    corrected = statistics.holm([difference.p for difference in differences])
    for row, difference, p in zip(others, differences, corrected, strict=True):
        row.difference, row.p = difference, p
