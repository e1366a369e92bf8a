"""The verdicts below the table, and the notes on how its numbers were computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from gptexp.config.objective import HIGHER
from gptexp.report import naming, statistics
from gptexp.report.budget import Reading, amount
from gptexp.report.columns import FLOPS_MARK, SEEDS_MARK, TOKENS_MARK, better_side, p_value, unit_of, unsure
from gptexp.report.comparable import tokens_of
from gptexp.report.comparison import Comparison, Row
from gptexp.report.effects import main_effects
from gptexp.report.equal import held_equal
from gptexp.report.where import Located
from gptexp.util.files import display_path
from gptexp.util.text import printable

ENOUGH = 10  # seeds; with fewer, a bootstrap interval is too narrow
MOST_NAMES = 4  # in one line
DEVIATION = 0.001  # nats per token; smaller differences to result.json are rounding


def verdicts(c: Comparison) -> list[str]:
    """Return one line for each result: significantly better, worse, not significant, not tested."""
    significant = [row for row in c.rows if row.p is not None and row.p < statistics.ALPHA]
    sign = -1 if c.metric in HIGHER else 1
    better = [f"{row.label} ({_p(row)})" for row in significant if row.difference and sign * row.difference.mean < 0]
    worse = [f"{row.label} ({_p(row)})" for row in significant if row.difference and sign * row.difference.mean > 0]
    sides = (("better", better), ("worse", worse))
    lines = [f"{side} than {c.baseline.label}: {listed(names)}" for side, names in sides if names]
    if unsure(c):
        lines.append(f"{_not_significant(c)}: {listed([row.label for row in unsure(c)])}")
    return [*lines, *_untested(c), *_in_progress(c)]


def _not_significant(c: Comparison) -> str:
    return f"no significant difference from {c.baseline.label} with these seeds"


def _in_progress(c: Comparison) -> Iterator[str]:
    for sweep in c.unfinished:
        jobs = f"{sweep.done} of {_plural(sweep.total, 'job')}"
        yield f"{display_path(sweep.folder)}: {jobs} complete; the others are not in this table"


def _untested(c: Comparison) -> Iterator[str]:
    untested = [(row.label, row.difference.sd) for row in c.rows if row.difference is not None and row.p is None]
    constant = [label for label, sd in untested if sd == 0]
    single = [label for label, sd in untested if sd is None]
    if constant:
        yield f"zero variance across seeds; not tested: {listed(constant)}"
    if single:
        yield (
            f"one seed; no interval and no test against {c.baseline.label}: {listed(single)}; three seeds give a "
            "rough interval (seed=1,2,3)"
        )


def listed(names: Sequence[str]) -> str:
    """Return names in one line, at most MOST_NAMES of them."""
    more = len(names) - MOST_NAMES
    return "; ".join(names) if more <= 1 else f"{'; '.join(names[:MOST_NAMES])}; and {more} more"


def _p(row: Row) -> str:
    text = p_value(row.p)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"


def notes(c: Comparison) -> list[str]:
    """Return the notes: how the numbers were computed, and what limits the comparison."""
    return [
        *_method(c),
        *_effects(c),
        *_at(c),
        *_confounded(c),
        *held_equal(c),
        *_costs(c),
        *_missing(c),
        *_origins(c),
        *_texts(c),
        *_where(c),
    ]


def _texts(c: Comparison) -> Iterator[str]:
    if c.texts:
        yield f"{len(c.texts)} validation texts, of which a table compares one; their folders: {'; '.join(c.texts)}"


def _method(c: Comparison) -> Iterator[str]:
    unit = f" in {unit_of(c)}" if unit_of(c) else ""
    place = "at the last step" if c.question.at is None else "at the budget"
    if c.is_ablation:
        yield f"{naming.BASELINE}: {naming.label(c.baseline.settings, c.keys)}; the others are named by their changes"
    yield f"{c.metric}{unit}, {place}; {better_side(c.metric)} is better"
    yield from _intervals(c)
    yield from _tests(c)
    yield from _seeds_needed(c)


def _intervals(c: Comparison) -> Iterator[str]:
    if not any(row.interval.low is not None for row in c.rows):
        return
    if c.question.method == "t":
        yield "±: 95% interval of the mean over seeds, by Student's t"
        return
    yield f"[ ]: 95% interval of the mean over seeds, by the BCa bootstrap ({statistics.RESAMPLES:,} resamples)"
    if any(1 < row.interval.n < ENOUGH for row in c.rows):
        yield f"with fewer than {ENOUGH} seeds a bootstrap interval is too narrow; use --interval t"


def _tests(c: Comparison) -> Iterator[str]:
    names = {
        "paired t": "paired t-test on the seeds that both have",
        "Welch's t": "Welch's t-test, fewer than two shared seeds",
    }
    if c.tests:
        yield (
            f"difference: to {c.baseline.label}; {' or '.join(names[test] for test in c.tests)}; "
            f"±: its 95% interval; p: two-sided, Holm-corrected over {_plural(c.comparisons, 'comparison')}"
        )


def _seeds_needed(c: Comparison) -> Iterator[str]:
    tested = [row.difference for row in unsure(c) if row.difference]
    if not tested:
        return
    level = f"{statistics.ALPHA:g}" + (f"/{c.comparisons}" if c.comparisons > 1 else "")
    which = "seeds in both rows" if "paired t" in {difference.test for difference in tested} else "seeds per row"
    yield (
        f"needed: {which} that detect a true difference of the observed size with {statistics.POWER:.0%} power at "
        f"p < {level} (noncentral t)"
    )
    if any(row.difference and row.difference.n != len(row.readings) for row in unsure(c)):
        yield f"(has n): the test uses n seeds of the row, because {c.baseline.label} lacks the others"


def _effects(c: Comparison) -> Iterator[str]:
    effects = main_effects(c)
    for over in dict.fromkeys(effect.over for effect in effects):
        names = ", ".join(effect.name for effect in effects if effect.over == over)
        units = "seeds" if over == "seeds" else "combinations of the others, because fewer than two seeds are shared"
        yield (
            f"mean over the others: {names}, each averaged over the combinations that all its values have; ±: 95% "
            f"interval over the {units}, by Student's t"
        )


def _at(c: Comparison) -> Iterator[str]:
    if c.question.at is None or c.budget is None:
        return
    yield f"read at {amount(c.question.at, c.budget)}, the most that all runs reached; linear between validations"
    early = [row.label for row in c.rows if any(map(_before_decay, row.readings))]
    if early:
        yield f"read before the end of their schedules, which is a disadvantage: {listed(early)}"
    if c.question.at == "seconds" and any(run.curve and run.curve.seconds_derived for run in c.runs):
        yield "training seconds of some runs are derived from tokens_per_second in metrics.csv"


def _before_decay(reading: Reading) -> bool:
    """Whether a run was read before the decay of its learning rate ended; a constant rate does not decay."""
    return reading.steps < 0.99 * reading.run.steps and reading.run.settings.get("schedule.kind") != "constant"


def _confounded(c: Comparison) -> Iterator[str]:
    if c.along:
        names = ", ".join(printable(key) for key in c.along)
        keys = ", ".join(naming.short_names(c.keys).values())
        yield f"confounded: {names} vary together with {keys}"


def _costs(c: Comparison) -> Iterator[str]:
    if "tokens" in c.unequal:
        yield f"{TOKENS_MARK} tokens differ from {c.baseline.label}; --at tokens makes them equal"
    if "flops" in c.unequal:
        yield f"{FLOPS_MARK} compute differs from {c.baseline.label}; --at flops makes it equal"
    if len({tokens_of(run) for run in c.runs}) > 1 and c.question.at != "bytes":
        yield "tokens of different tokenizers contain different amounts of text; --at bytes compares at equal text"
    if c.flops_estimated:
        yield "~ FLOPs estimated as 6 per parameter and token: not every result.json has flops_per_token"


def _missing(c: Comparison) -> Iterator[str]:
    for row in c.rows:
        if row.missing:
            seeds = ", ".join(f"{(run.settings or {}).get('seed')} ({run.reason})" for run in row.missing)
            yield f"{SEEDS_MARK} {row.label}: not in the mean: seed {seeds}"


def _origins(c: Comparison) -> Iterator[str]:
    devices = sorted({run.origin["device"] for run in c.runs if "device" in run.origin})
    if len(devices) > 1:
        yield f"tokens/s and time come from different machines: {'; '.join(map(printable, devices))}"
    code = Counter(name for run in c.runs for name in run.code)
    if len(code) > 1:
        commits = {name: f" ({commit})" for run in c.runs for name, commit in run.commits.items()}
        names = [f"{name}{commits.get(name, '')}: {_plural(count, 'run')}" for name, count in code.most_common()]
        yield f"the runs were made by {len(code)} versions of the code: {printable(listed(names))}"


def _where(c: Comparison) -> Iterator[str]:
    if c.where is None:
        return
    located = c.where.located
    tests = sorted({one.total.difference.test for one in located} - {""})
    interval = f"±: its 95% interval over the seeds ({', '.join(tests)}), not corrected for the number of bins; "
    yield (
        "by place, frequency and repetition: nats per token of each run's last checkpoint, in float32; difference: "
        f"to {c.baseline.label}, on the same tokens; {interval if tests else ''}"
        "contribution: difference × share of the tokens, which add up to that of all tokens"
    )
    yield _place(located)
    yield f"frequency: share of a token in the training text of {c.baseline.label}"
    yield (
        "repetition in W: tokens of the longest sequence that ends with the token and occurred before in this window; "
        "from 2 on, the token followed the same token before, which an induction head can predict (arXiv 2209.11895, "
        "2312.04927)"
    )
    if single := [one.label for one in located if one.total.difference.sd is None]:
        yield f"one seed; no interval by place, frequency and repetition: {listed(single)}"
    if (most := max(one.deviation for one in located)) > DEVIATION:
        yield f"val/loss of the checkpoints in float32 differs from that in result.json by up to {most:.4f}"
    yield from (f"not by place, frequency and repetition: {line}" for line in c.where.absent)


def _place(located: Sequence[Located]) -> str:
    note = (
        "place in W: of a token among the targets of its window of W tokens, from 0; W: the larger block_size of both"
    )
    one = max(located, key=lambda pair: pair.window - pair.smaller)
    if one.window == one.smaller or one.window % one.smaller:
        return note
    at = one.smaller + one.smaller // 4
    example = f"the token at place {at} in {one.window} has place {at % one.smaller} in windows of {one.smaller}"
    return f"{note}; windows do not overlap, so {example}"


def _plural(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"
