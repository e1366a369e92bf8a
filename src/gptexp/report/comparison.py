"""The comparison itself: a question, the runs that can answer it, and the rows that do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gptexp.config.fingerprint import matters
from gptexp.report import budget, naming, typed
from gptexp.report.comparable import NotComparable, comparable, diverged, require_metric, told_apart_by_data
from gptexp.report.groups import by_text
from gptexp.report.reading import LeftOut, Run, find_runs, read_runs
from gptexp.report.rows import Row, compare_to, make_rows, named_and_sorted, relabelled

TOLERANCE = 0.01  # tokens or FLOPs that differ by less are called equal


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of the runs; the fields are the flags of the command line.

    by: settings that come first. baseline: key=value, several by commas, or the label of a row.
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
        """As many as were given."""
        if self.baseline is None:
            return ()
        return (self.baseline,) if isinstance(self.baseline, str) else tuple(self.baseline)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that table, plots and page show.

    keys: settings that tell the rows apart, those asked for (by) first. along: others that vary with them.
    budget: the amount at which the curves were read. flops_estimated: 6 for each parameter and token.
    unequal: of tokens and flops, those in which the rows differ. texts: the folders of each validation text, where
    there are several. unfinished: sweeps that have jobs left.
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
    unfinished: list[typed.Progress]

    @property
    def metric(self) -> str:
        return self.question.metric

    @property
    def runs(self) -> list[Run]:
        """The runs that take part."""
        return [reading.run for row in self.rows for reading in row.readings]

    @property
    def is_ablation(self) -> bool:
        """Whether each row changes a setting or two of the baseline, and is called by that."""
        return self.baseline.label == naming.BASELINE

    @property
    def tests(self) -> list[str]:
        """Which tests were made."""
        return sorted({row.difference.test for row in self.rows if row.difference and row.difference.test})

    @property
    def comparisons(self) -> int:
        """How many p-values were corrected together."""
        return sum(row.p is not None for row in self.rows)


def compare_folders(folders: Iterable[Path], question: Question) -> Comparison:
    """Read run folders and compare them.

    Raises:
        RunError: nothing there, or nothing comparable; one line for the user.
    """
    runs, left_out = read_runs(find_runs(folders))
    return compare(runs, left_out, question)


def compare(runs: Sequence[Run], left_out: Sequence[LeftOut], question: Question) -> Comparison:
    """Compare runs that have been read.

    Raises:
        NotComparable: nothing comparable, or an argument that fits no run.
    """
    _require_some(runs, left_out)
    folders, texts = [*(run.folder for run in runs), *(lost.folder for lost in left_out)], by_text(runs)
    require_metric(runs, question.metric)
    runs = told_apart_by_data(runs)
    known = [key for run in runs for key in run.settings]
    by = [naming.resolve(name, known) for name in question.by]
    named = [text.strip() for text in question.baselines if text.strip() and "=" not in text]  # a row's label
    wanted = {}
    if question.baselines and not named:
        wanted = naming.parse_baseline(question.baselines, [*known, *_preset_groups(runs)])
    _refuse_seed(by, wanted)
    also = [key for key in (*by, *wanted) if not matters(key)]
    kept, incomparable = comparable(runs, question.metric, also, lambda run: bool(wanted) and _fits(run, wanted))
    sound = [run for run in kept if not diverged(run, question.metric)]
    broken = [_broken(run, question.metric) for run in kept if diverged(run, question.metric)]
    amount, readings, unread = _read(sound, question)
    left_out = [*left_out, *incomparable, *broken, *unread]
    _require_some(readings, left_out)
    rows, keys, along = named_and_sorted(
        make_rows(readings, left_out, broken, also, question.method), by, typed.swept(run.folder for run in sound)
    )
    whole = None if by else naming.whole_of_ablation([row.settings for row in rows], keys)
    baseline = _baseline(rows, keys, wanted, named, first=whole or 0)
    if whole is not None and rows[whole] is baseline:
        rows = relabelled(rows, baseline, keys)
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
        unequal=frozenset(cost for cost in ("tokens", "flops") if _differ([row.mean(cost) for row in rows])),
        texts=texts,
        unfinished=typed.unfinished_sweeps(folders),
    )


def _require_some(left: Sequence[object], left_out: Sequence[LeftOut]) -> None:
    if not left:
        more = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
        raise NotComparable(f"nothing to compare: {left_out[0].folder}: {left_out[0].reason}{more}")


def _refuse_seed(by: Sequence[str], wanted: Iterable[str]) -> None:
    for flag, keys in (("--by", by), ("--baseline", wanted)):
        if "seed" in keys:
            raise NotComparable(f"{flag}: the intervals are over the seeds; name a setting that was swept")


def _broken(run: Run, metric: str) -> LeftOut:
    return LeftOut(run.folder, f"diverged: its last {metric} is no finite number", run.settings)


def _read(runs: Sequence[Run], question: Question) -> tuple[float | None, list[budget.Reading], list[LeftOut]]:
    if question.at is None or not runs:
        return None, budget.at_end(runs, question.metric), []
    return budget.at_budget(runs, question.metric, question.at)


def _preset_groups(runs: Sequence[Run]) -> list[str]:
    """The groups of which some run was started with a preset."""
    return sorted({group for run in runs for group in typed.presets([run.folder])})


def _fits(run: Run, wanted: dict[str, str]) -> bool:
    return naming.fits({**typed.presets([run.folder]), **run.settings}, wanted)


def _baseline(
    rows: Sequence[Row], keys: Sequence[str], wanted: dict[str, str], named: Sequence[str], first: int
) -> Row:
    """The row that the others are compared to: the one asked for, else the first that has a number."""
    if named:
        fitting = [row for row in rows if row.label == " ".join(named)]
    elif wanted:
        fitting = [row for row in rows if naming.fits({**row.presets, **row.settings}, wanted)]
    else:
        return next(row for row in (rows[first], *rows) if row.readings)
    if len(fitting) == 1 and fitting[0].readings:
        return fitting[0]
    text = " ".join(named) or ",".join(f"{key}={value}" for key, value in wanted.items())
    why = "all its runs diverged" if len(fitting) == 1 else f"{len(fitting) or 'no'} configurations have this"
    some = [naming.as_typed(row.settings, keys) for row in fitting if len(fitting) > 1] or [
        naming.as_typed(row.settings, keys) for row in rows
    ]
    raise NotComparable(f"--baseline={text}: {why}; give one of: {'; '.join(some)}")


def _differ(costs: Sequence[float | None]) -> bool:
    known = [cost for cost in costs if cost is not None]
    return bool(known) and max(known) - min(known) > TOLERANCE * max(known)
