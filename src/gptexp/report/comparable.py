"""Comparable numbers: which runs may share a table, and why the others are excluded."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from gptexp.config import KINDS
from gptexp.config.data import WEIGHTED
from gptexp.config.fingerprint import matters, settings_that_matter
from gptexp.config.objective import LMConfig, ObjectiveConfig
from gptexp.report.reading import LeftOut, Run
from gptexp.report.validation_texts import by_text
from gptexp.util.errors import RunError

PER_BYTE = "val/bpb"
PATHS = re.compile(r"data\.(parts\.\w+\.)?(val_)?path")
WEIGHT = re.compile(r"data\.parts\.\w+\.weight")


class NotComparable(RunError):
    """No comparable runs, or a wrong argument; the message is one line for the user."""


def key_of(settings: dict[str, Any], also: Iterable[str] = ()) -> str:
    """Return a key that is equal for runs of one configuration."""
    return json.dumps(settings_that_matter(settings, also), sort_keys=True, default=str)


def require_metric(runs: Sequence[Run], metric: str) -> None:
    """Refuse a metric that no run has.

    Raises:
        NotComparable: the message lists the available metrics.
    """
    names = sorted({name for run in runs for name in run.metrics})
    if runs and metric not in names:
        raise NotComparable(f"--metric={metric}: no run has it; choose one of {', '.join(names)}")


def comparable(
    runs: Sequence[Run], metric: str, also: Iterable[str] = (), preferred: Callable[[Run], bool] = lambda _: False
) -> tuple[list[Run], list[LeftOut]]:
    """Return the runs that can be compared by this metric, and the others with the reason.

    The objective, text and tokenizer are those of the most runs, or of the most `preferred` runs (the baseline).

    Raises:
        NotComparable: fewer than two of several configurations remain.
    """
    left_out = [_out(run, _without(run, metric)) for run in runs if metric not in run.metrics]
    kept = [run for run in runs if metric in run.metrics]
    before = {key_of(run.settings, also) for run in kept}
    reasons: list[LeftOut] = []
    why = f"another objective, where {metric} measures something else"
    kept = _keep_one(kept, objective_of, why, preferred, reasons)
    of_one_objective = kept
    kept = _keep_one(kept, partial(_text, metric), "scored on another validation text", preferred, reasons)
    if part_of(metric) == WEIGHTED:
        why = f"other weights, by which {metric} is averaged; compare by --metric {base_of(metric)} or that of a part"
        kept = _keep_one(kept, _shares, why, preferred, reasons)
    if kept and base_of(metric) in schema_of(kept[0]).per_token:
        why = f"another tokenizer, and {metric} is an average per token; compare by --metric {PER_BYTE}"
        kept = _keep_one(kept, tokens_of, why, preferred, reasons)
    if len(before) > 1 and reasons and len({key_of(run.settings, also) for run in kept}) < 2:
        if texts := by_text(of_one_objective):
            raise NotComparable(
                f"nothing to compare: scored on {len(texts)} validation texts; give one of: {'; '.join(texts)}"
            )
        raise NotComparable(f"nothing to compare: {reasons[0].folder}: {reasons[0].reason}")
    kept, older = _newest(kept, also)
    return kept, [*left_out, *reasons, *older]


def objective_of(run: Run) -> str:
    """Return the kind of objective that a run was trained with."""
    return str(run.settings.get("objective.kind"))


def schema_of(run: Run) -> type[ObjectiveConfig]:
    """Return the settings class of a run's objective, which states its metrics, their units and what they average."""
    schema = KINDS["objective"].get(objective_of(run), LMConfig)
    assert issubclass(schema, ObjectiveConfig)
    return schema


def _without(run: Run, metric: str) -> str:
    if metric in schema_of(run).metrics:
        return f"its result.json has no {metric}"
    return f"objective={objective_of(run)} has no {metric}; it has {', '.join(sorted(run.metrics))}"


def base_of(metric: str) -> str:
    """Return the metric of which one is that of a part of a mixture: val/bpb for val/bpb/books."""
    return "/".join(metric.split("/")[:2])


def part_of(metric: str) -> str:
    """Return the part of a mixture that a metric is of; empty for a metric of a whole text."""
    return metric.removeprefix(base_of(metric)).removeprefix("/")


def _text(metric: str, run: Run) -> Hashable:
    """Return the hash of the text that a metric scores, which may be one part of a mixture."""
    return run.part_texts.get(part_of(metric), run.text_sha256)


def _shares(run: Run) -> Hashable:
    """Return the weights of a mixture up to a common factor."""
    weights = {key: float(value) for key, value in run.settings.items() if WEIGHT.fullmatch(key)}
    return tuple(sorted((key, round(value / sum(weights.values()), 9)) for key, value in weights.items()))


def tokens_of(run: Run) -> Hashable:
    """Return what identifies a run's tokenizer: its settings and the number of tokens of the validation text."""
    keys = (key for key in run.settings if key.startswith("tokenizer.") and matters(key))
    return (run.val_tokens, *sorted((key, str(run.settings[key])) for key in keys))


def _keep_one(
    runs: list[Run],
    kind: Callable[[Run], Hashable],
    why: str,
    preferred: Callable[[Run], bool],
    reasons: list[LeftOut],
) -> list[Run]:
    """Keep the runs of the most frequent kind among the preferred runs, or among all; add the others to `reasons`."""
    kinds = Counter(kind(run) for run in [r for r in runs if preferred(r)] or runs)
    if not kinds:
        return runs
    chosen = kinds.most_common(1)[0][0]
    reasons += [_out(run, why) for run in runs if kind(run) != chosen]
    return [run for run in runs if kind(run) == chosen]


def _newest(runs: list[Run], also: Iterable[str]) -> tuple[list[Run], list[LeftOut]]:
    """Keep the run that finished last, of those with the same settings and seed."""
    newest: dict[tuple[str, int], Run] = {}
    for run in runs:
        key = (key_of(run.settings, also), run.seed)
        if key not in newest or run.finished > newest[key].finished:
            newest[key] = run
    older = []
    for run in runs:
        kept = newest[key_of(run.settings, also), run.seed]
        if run is not kept:
            code = " and was made by other code" if run.code != kept.code and run.code and kept.code else ""
            older.append(_out(run, f"same settings and seed as {kept.folder}, which is newer{code}"))
    return [run for run in runs if newest[key_of(run.settings, also), run.seed] is run], older


def _out(run: Run, reason: str) -> LeftOut:
    return LeftOut(run.folder, reason, run.settings)


def separate_by_text(runs: Sequence[Run]) -> list[Run]:
    """Return the runs with settings that identify their text by its content instead of its path.

    Runs with equal settings and different texts (a file was edited between them) become two configurations. Runs
    with the same text at two paths become one.
    """
    runs = _with_one_path(runs)
    texts: dict[str, set[str]] = {}
    for run in runs:
        texts.setdefault(key_of(run.settings), set()).add(run.origin.get("data", ""))
    return [_with_data(run) if len(texts[key_of(run.settings)]) > 1 else run for run in runs]


def _with_one_path(runs: Sequence[Run]) -> list[Run]:
    """Give runs whose data have the same fingerprint the paths of the first of them."""
    first: dict[str, dict[str, Any]] = {}
    moved = []
    for run in runs:
        paths = {key: value for key, value in run.settings.items() if PATHS.fullmatch(key)}
        same = first.setdefault(run.origin["data"], paths) if run.origin.get("data") else paths
        moved.append(replace(run, settings={**run.settings, **same}) if paths.keys() == same.keys() else run)
    return moved


def _with_data(run: Run) -> Run:
    return replace(run, settings={**run.settings, "data.fingerprint": run.origin.get("data", "")[:8] or None})


def diverged(run: Run, metric: str) -> bool:
    """Return whether the metric of a finished run is not finite."""
    return not math.isfinite(run.metrics[metric])
