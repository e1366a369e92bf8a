"""A comparison: the question, the runs that can answer it, and one row for each configuration."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from gptexp.config.fingerprint import DEFAULT_KINDS, matters, settings_that_matter
from gptexp.report import budget, naming, overrides, statistics
from gptexp.report.budget import Reading
from gptexp.report.comparable import NotComparable, comparable, diverged, key_of, require_metric, separate_by_text
from gptexp.report.reading import LeftOut, Run, find_runs, read_runs
from gptexp.report.statistics import Difference, Interval
from gptexp.report.validation_texts import by_text
from gptexp.report.where import Where


@dataclass(frozen=True, kw_only=True)
class Question:
    """What to compare; the fields are the options of the command.

    by: settings that come first. baseline: key=value, several separated by commas, or the label of a row.
    at: tokens, bytes, flops or seconds, or None for the end of each run.
    method: of the intervals, t or bootstrap.
    """

    metric: str = "val/bpb"
    by: Sequence[str] = ()
    baseline: str | Sequence[str] | None = None
    at: str | None = None
    method: str = "t"

    @property
    def baselines(self) -> tuple[str, ...]:
        return (self.baseline,) if isinstance(self.baseline, str) else tuple(self.baseline or ())


@dataclass(kw_only=True, eq=False)
class Row:
    """One configuration with the readings of its seeds.

    missing: excluded and diverged runs, unless another run with the same seed is included.
    best: mean over seeds of the best value during training. p: Holm-corrected.
    presets: the presets that its runs were started with, by group, for example model: mini_gpt.
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
        """Return the mean over seeds of a cost: tokens, flops, nbytes, seconds or steps."""
        known = [getattr(reading, cost) for reading in self.readings]
        return fmean(known) if known and None not in known else None

    @property
    def parameters(self) -> int | None:
        return self.readings[0].run.parameters if self.readings else None

    @property
    def tokens_per_second(self) -> float | None:
        return fmean(reading.run.tokens_per_second for reading in self.readings) if self.readings else None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The content of table, plots and page.

    keys: settings that distinguish the rows, those of --by first. along: other settings that vary with them.
    budget: the amount at which the curves were read. flops_estimated: whether FLOPs are 6 per parameter and token.
    unequal: of tokens and flops, those in which the rows differ. texts: the folders of each validation text, if
    there are several. unfinished: sweeps with incomplete jobs. where: in which tokens the differences lie.
    """

    question: Question
    keys: list[str]
    by: list[str]
    along: list[str]
    rows: list[Row]
    baseline: Row
    budget: float | None
    flops_estimated: bool
    left_out: list[LeftOut]
    unequal: frozenset[str]
    texts: list[str]
    unfinished: list[overrides.Progress]
    where: Where | None = None

    @property
    def metric(self) -> str:
        return self.question.metric

    @property
    def runs(self) -> list[Run]:
        """The runs that are included."""
        return [reading.run for row in self.rows for reading in row.readings]

    @property
    def is_ablation(self) -> bool:
        """Whether each other row changes one or two settings of the baseline and is named by them."""
        return self.baseline.label == naming.BASELINE

    @property
    def tests(self) -> list[str]:
        """The names of the tests that were computed."""
        return sorted({row.difference.test for row in self.rows if row.difference and row.difference.test})

    @property
    def comparisons(self) -> int:
        """The number of p-values that were corrected together."""
        return sum(row.p is not None for row in self.rows)


def compare_folders(folders: Iterable[Path], question: Question) -> Comparison:
    """Read run folders and compare them.

    Raises:
        RunError: no runs, or no comparable runs.
    """
    runs, left_out = read_runs(find_runs(folders))
    return compare(runs, left_out, question)


def compare(runs: Sequence[Run], left_out: Sequence[LeftOut], question: Question) -> Comparison:
    """Compare runs that have been read.

    Raises:
        NotComparable: no comparable runs, or an argument that matches none of them.
    """
    _require_some(runs, left_out)
    folders, texts = [*(run.folder for run in runs), *(excluded.folder for excluded in left_out)], by_text(runs)
    require_metric(runs, question.metric)
    runs = separate_by_text(runs)
    known = [key for run in runs for key in run.settings]
    by = [naming.resolve(name, known) for name in question.by]
    label = " ".join(text.strip() for text in question.baselines if text.strip() and "=" not in text)
    wanted = {}
    if question.baselines and not label:
        wanted = naming.parse_baseline(question.baselines, [*known, *_preset_groups(runs)])
    _refuse_seed(by, wanted)
    also = [key for key in (*by, *wanted) if not matters(key)]
    kept, incomparable = comparable(runs, question.metric, also, lambda run: bool(wanted) and _fits(run, wanted))
    finite = [run for run in kept if not diverged(run, question.metric)]
    broken = [_broken(run, question.metric) for run in kept if diverged(run, question.metric)]
    amount, readings, unread = _read(finite, question)
    left_out = [*left_out, *incomparable, *broken, *unread]
    _require_some(readings, left_out)
    rows = sorted(_make_rows(readings, left_out, broken, also, question.method), key=_rank)
    rows, keys, along = naming.named_and_sorted(rows, by, overrides.swept(run.folder for run in finite))
    center = None if by else naming.center_of_ablation([row.settings for row in rows], keys)
    baseline = _baseline(rows, keys, wanted, label, first=center or 0)
    if center is not None and rows[center] is baseline:
        rows = naming.named_by_change(rows, baseline, keys)
    compare_to(rows, baseline)
    return Comparison(
        question=question,
        keys=keys,
        by=by,
        along=along,
        rows=rows,
        baseline=baseline,
        budget=amount,
        flops_estimated=budget.flops_are_estimated([reading.run for reading in readings]),
        left_out=left_out,
        unequal=frozenset(cost for cost in ("tokens", "flops") if budget.differ([row.mean(cost) for row in rows])),
        texts=texts,
        unfinished=overrides.unfinished_sweeps(folders),
    )


def _require_some(included: Sequence[object], left_out: Sequence[LeftOut]) -> None:
    if not included:
        more = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
        raise NotComparable(f"nothing to compare: {left_out[0].folder}: {left_out[0].reason}{more}")


def _refuse_seed(by: Sequence[str], wanted: Iterable[str]) -> None:
    for flag, keys in (("--by", by), ("--baseline", wanted)):
        if "seed" in keys:
            raise NotComparable(f"{flag}: the intervals are over the seeds; give a setting that was swept")


def _broken(run: Run, metric: str) -> LeftOut:
    return LeftOut(run.folder, f"diverged: its last {metric} is not finite", run.settings)


def _read(runs: Sequence[Run], question: Question) -> tuple[float | None, list[Reading], list[LeftOut]]:
    if question.at is None or not runs:
        return None, budget.at_end(runs, question.metric), []
    return budget.at_budget(runs, question.metric, question.at)


def _preset_groups(runs: Sequence[Run]) -> list[str]:
    """The groups for which at least one run was started with a preset."""
    return sorted({group for run in runs for group in overrides.presets([run.folder])})


def _fits(run: Run, wanted: dict[str, str]) -> bool:
    return naming.fits({**overrides.presets([run.folder]), **run.settings}, wanted)


def _make_rows(
    readings: Sequence[Reading],
    left_out: Sequence[LeftOut],
    broken: Sequence[LeftOut],
    also: Sequence[str],
    method: str,
) -> list[Row]:
    """Return a row for each configuration that has a reading, or whose runs all diverged (`broken`)."""
    groups: dict[str, list[Reading]] = {}
    settings: dict[str, dict[str, Any]] = {}
    folders: dict[str, list[Path]] = {}
    known: list[tuple[Run | LeftOut, list[Reading]]] = [(reading.run, [reading]) for reading in readings]
    for run, found in [*known, *((excluded, []) for excluded in broken)]:
        key = key_of(run.settings or {}, also)
        groups.setdefault(key, []).extend(found)
        settings[key] = _compared(run.settings or {}, also)
        folders.setdefault(key, []).append(run.folder)
    return [
        make_row(settings[key], group, _missing(key, group, left_out, also), folders[key], method)
        for key, group in groups.items()
    ]


def _compared(settings: dict[str, Any], also: Sequence[str]) -> dict[str, Any]:
    """The settings of a row, with the default kinds that settings_that_matter omits: other rows may differ in them."""
    kinds = {f"{group}.kind": settings.get(f"{group}.kind", kind) for group, kind in DEFAULT_KINDS.items()}
    return settings_that_matter(settings, also) | kinds


def _missing(key: str, group: Sequence[Reading], left_out: Sequence[LeftOut], also: Sequence[str]) -> list[LeftOut]:
    """The excluded runs of a configuration, unless another run with the same seed is included."""
    seeds = {reading.run.seed for reading in group}
    known = [(run, run.settings) for run in left_out if run.settings is not None]
    return [run for run, settings in known if key_of(settings, also) == key and settings.get("seed") not in seeds]


def make_row(
    settings: dict[str, Any], group: Sequence[Reading], missing: list[LeftOut], folders: Sequence[Path], method: str
) -> Row:
    """Return a row without a label and a difference."""
    group = sorted(group, key=lambda reading: reading.run.seed)
    best = [reading.best for reading in group]
    return Row(
        settings=settings,
        readings=group,
        missing=missing,
        interval=statistics.interval([reading.value for reading in group], method),
        best=fmean(best) if best and all(map(math.isfinite, best)) else None,
        presets=overrides.presets(folders),
    )


def _rank(row: Row) -> int:
    """The position of a row's first run in its sweep."""
    return min((overrides.rank(reading.run.folder) for reading in row.readings), default=0)


def _baseline(rows: Sequence[Row], keys: Sequence[str], wanted: dict[str, str], label: str, first: int) -> Row:
    """Return the requested baseline, or the first row that has a reading, if none was requested."""
    if label:
        fitting = [row for row in rows if row.label == label]
    elif wanted:
        fitting = [row for row in rows if naming.fits({**row.presets, **row.settings}, wanted)]
    else:
        return next(row for row in (rows[first], *rows) if row.readings)
    if len(fitting) == 1 and fitting[0].readings:
        return fitting[0]
    text = label or ",".join(f"{key}={value}" for key, value in wanted.items())
    why = "all its runs diverged" if len(fitting) == 1 else f"{len(fitting) or 'no'} configurations have this"
    choices = [naming.as_option(row.settings, keys) for row in (fitting if len(fitting) > 1 else rows)]
    raise NotComparable(f"--baseline={text}: {why}; give one of: {'; '.join(choices)}")


def compare_to(rows: Sequence[Row], baseline: Row) -> None:
    """Set each row's difference to the baseline, and the p-values, which are corrected together."""
    others = [row for row in rows if row is not baseline and row.readings]
    differences = [statistics.difference(row.values, baseline.values) for row in others]
    corrected = statistics.holm([difference.p for difference in differences])
    for row, difference, p in zip(others, differences, corrected, strict=True):
        row.difference, row.p = difference, p
