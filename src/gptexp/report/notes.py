"""What a reader must know to trust the table: how it was reckoned, what it can tell, what to mind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from gptexp.config.objective import HIGHER
from gptexp.report import naming, statistics
from gptexp.report.budget import Reading, amount
from gptexp.report.cells import (
    FLOPS_MARK,
    SEEDS_MARK,
    TOKENS_MARK,
    better_side,
    p_value,
    unit_of,
    unsure,
)
from gptexp.report.comparable import tokens_of
from gptexp.report.comparison import Comparison
from gptexp.report.effects import main_effects
from gptexp.report.rows import Row
from gptexp.util.files import display_path
from gptexp.util.text import printable

PLENTY = 10  # seeds; with fewer, a bootstrap interval is too narrow


def verdicts(c: Comparison) -> list[str]:
    """What the seeds say: better, worse, not told apart."""
    told = [row for row in c.rows if row.p is not None and row.p < statistics.ALPHA]
    sign = -1 if c.metric in HIGHER else 1
    better = [f"{row.label} ({_p(row)})" for row in told if row.difference and sign * row.difference.mean < 0]
    worse = [f"{row.label} ({_p(row)})" for row in told if row.difference and sign * row.difference.mean > 0]
    sides = (("better", better), ("worse", worse))
    lines = [f"{word} than {c.baseline.label}: {listed(names)}" for word, names in sides if names]
    if unsure(c):
        lines.append(f"too few seeds to tell from {c.baseline.label}: {listed([row.label for row in unsure(c)])}")
    return [*lines, *_untested(c), *_in_progress(c)]


def _in_progress(c: Comparison) -> Iterator[str]:
    for sweep in c.unfinished:
        jobs = f"{sweep.done} of {_plural(sweep.total, 'job')}"
        yield f"{display_path(sweep.folder)}: {jobs} done; this is what there is so far"


def _untested(c: Comparison) -> Iterator[str]:
    untested = [row for row in c.rows if row.difference is not None and row.p is None]
    still = [row.label for row in untested if row.difference and row.difference.sd == 0]
    single = [row.label for row in untested if row.difference and row.difference.sd is None]
    if still:
        yield f"no test of {listed(still)}: the seeds don't spread, as if they changed nothing"
    if single:
        yield (
            f"too few seeds to tell from {c.baseline.label}: {listed(single)}: with one seed there is no interval and "
            "no test; three give a rough one (seed=1,2,3)"
        )


MOST_NAMES = 4


def listed(names: Sequence[str]) -> str:
    """Names in a line, no more than a reader takes in."""
    more = len(names) - MOST_NAMES
    return "; ".join(names) if more <= 1 else f"{'; '.join(names[:MOST_NAMES])}; and {more} more"


def _p(row: Row) -> str:
    text = p_value(row.p)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"


def notes(c: Comparison) -> list[str]:
    """How the numbers were made, and what to mind about them."""
    return [*_method(c), *_effects(c), *_at(c), *_confounded(c), *_costs(c), *_missing(c), *_origins(c), *_texts(c)]


def _texts(c: Comparison) -> Iterator[str]:
    if c.texts:
        yield f"{len(c.texts)} validation texts, of which a table holds one; their folders: {'; '.join(c.texts)}"


def _method(c: Comparison) -> Iterator[str]:
    unit = f" in {unit_of(c)}" if unit_of(c) else ""
    place = "at the last step" if c.question.at is None else "at the budget"
    if c.is_ablation:
        yield f"{naming.BASELINE}: {naming.label(c.baseline.settings, c.keys)}; the others by what they change in it"
    yield f"{c.metric}{unit}, {place}; {better_side(c.metric)} is better"
    if any(row.interval.low is not None for row in c.rows):
        yield {
            "t": "±: 95% interval of the mean over seeds, by Student's t",
            "bootstrap": "[ ]: 95% interval of the mean over seeds, by the BCa bootstrap "
            f"({statistics.RESAMPLES:,} resamples)",
        }[c.question.method]
        if c.question.method == "bootstrap" and any(1 < row.interval.n < PLENTY for row in c.rows):
            yield f"with fewer than {PLENTY} seeds a bootstrap interval is too narrow; --interval t holds its 95%"
    if c.tests:
        tests = {
            "paired t": "paired t-test on the seeds that both have",
            "Welch's t": "Welch's t-test, fewer than two shared seeds",
        }
        yield (
            f"difference: to {c.baseline.label}; {' or '.join(tests[test] for test in c.tests)}; "
            f"± its own 95% interval; p: two-sided, Holm-corrected over {_plural(c.comparisons, 'comparison')}"
        )
    if unsure(c):
        level = f"{statistics.ALPHA:g}" + (f"/{c.comparisons}" if c.comparisons > 1 else "")
        paired = "paired t" in {row.difference.test for row in unsure(c) if row.difference}
        yield (
            f"needed: seeds{' that both share' if paired else ' of each'} that find the difference seen, if it is the "
            f"true one, with {statistics.POWER:.0%} power at p < {level} (noncentral t)"
        )
        if any(row.difference and row.difference.n != len(row.readings) for row in unsure(c)):
            yield f"(has n): the test uses n seeds of the row; {c.baseline.label} has no others to set against the rest"


def _effects(c: Comparison) -> Iterator[str]:
    effects = main_effects(c)
    for over in dict.fromkeys(effect.over for effect in effects):
        names = ", ".join(effect.name for effect in effects if effect.over == over)
        what = "seeds" if over == "seeds" else "combinations of the others, because fewer than two seeds are shared"
        yield (
            f"mean over the rest: {names}, each averaged over the combinations that all its values have; ±: 95% "
            f"interval over the {what}, by Student's t"
        )


def _at(c: Comparison) -> Iterator[str]:
    if c.question.at is None or c.budget is None:
        return
    yield f"read at {amount(c.question.at, c.budget)}, the most that all runs reached; linear between validations"
    early = [row.label for row in c.rows if any(map(_before_decay, row.readings))]
    if early:
        yield f"read before their schedules ended, which counts against them: {listed(early)}"
    if c.question.at == "seconds" and any(run.curve and run.curve.seconds_derived for run in c.runs):
        yield "training seconds of some runs are derived from tokens_per_second in metrics.csv"


def _before_decay(reading: Reading) -> bool:
    """Whether a run was read where its learning rate had yet to fall; a constant one's never does."""
    return reading.steps < 0.99 * reading.run.steps and reading.run.settings.get("schedule.kind") != "constant"


def _confounded(c: Comparison) -> Iterator[str]:
    if c.along:
        names = ", ".join(printable(key) for key in c.along)
        keys = ", ".join(naming.short_names(c.keys).values())
        yield f"{keys} {'is' if len(c.keys) == 1 else 'are'} not all that differs; along with it: {names}"


def _costs(c: Comparison) -> Iterator[str]:
    if "tokens" in c.unequal:
        yield f"{TOKENS_MARK} other number of tokens than {c.baseline.label}; --at tokens compares at equal"
    if "flops" in c.unequal:
        yield f"{FLOPS_MARK} other compute than {c.baseline.label}; --at flops compares at equal"
    if len({tokens_of(run) for run in c.runs}) > 1 and c.question.at != "bytes":
        yield "a token of one tokenizer holds more text than one of another; --at bytes compares at equal text"
    if c.flops_estimated:
        yield "~ FLOPs estimated as 6 for each parameter and token: not every result.json has flops_per_token"


def _missing(c: Comparison) -> Iterator[str]:
    for row in c.rows:
        if row.missing:
            seeds = ", ".join(f"{(lost.settings or {}).get('seed')} ({lost.reason})" for lost in row.missing)
            yield f"{SEEDS_MARK} {row.label}: not in the mean: seed {seeds}"


def _origins(c: Comparison) -> Iterator[str]:
    devices = sorted({run.origin["device"] for run in c.runs if "device" in run.origin})
    if len(devices) > 1:
        yield f"tokens/s and time are of different machines: {'; '.join(map(printable, devices))}"
    code = Counter(name for run in c.runs for name in run.code)
    if len(code) > 1:
        commits = {name: f" ({commit})" for run in c.runs for name, commit in run.commits.items()}
        said = [f"{name}{commits.get(name, '')}: {_plural(count, 'run')}" for name, count in code.most_common()]
        yield f"the runs were made by {len(code)} versions of the code: {printable(listed(said))}"


def _plural(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"
