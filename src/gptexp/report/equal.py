"""What all runs of a comparison have in common: steps, tokens, FLOPs or time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gptexp.report.budget import amount, differ
from gptexp.report.comparison import Comparison
from gptexp.report.reading import Run


def held_equal(c: Comparison) -> Iterator[str]:
    """Yield what was held equal in all runs of several rows, if anything was.

    Amounts that differ by less than a hundredth are equal, and so are those that come from one budget, which differ
    by less than a step. A comparison at a budget says it in another note.
    """
    if len(c.rows) < 2 or c.question.at is not None:
        return
    found = [*_steps(c.runs), *_amounts(c, "tokens", "max_tokens"), *_amounts(c, "flops", "max_flops"), *_time(c.runs)]
    if found:
        yield f"held equal: {', '.join(found)}"


def _steps(runs: Sequence[Run]) -> Iterator[str]:
    if len({run.steps for run in runs}) == 1:
        yield f"{runs[0].steps:,} steps"


def _amounts(c: Comparison, kind: str, setting: str) -> Iterator[str]:
    """Yield the recorded amount. A model without FLOPs has none."""
    amounts = [getattr(reading, kind) for row in c.rows for reading in row.readings]
    budgets = {run.asked.get(setting) for run in c.runs}
    if max(amounts) > 0 and (not differ(amounts) or (len(budgets) == 1 and budgets != {None})):
        yield amount(kind, max(amounts))


def _time(runs: Sequence[Run]) -> Iterator[str]:
    """Yield the time asked for, with the recorded steps if one configuration has several numbers of them."""
    times = {run.asked.get("max_time") for run in runs}
    if len(times) == 1 and (asked := times.pop()) is not None:
        steps = sorted({run.steps for run in runs})
        spread = f" ({steps[0]:,} to {steps[-1]:,} steps)" if len(steps) > 1 else ""
        yield f"a time of {asked}{spread}"
