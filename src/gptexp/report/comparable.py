"""Law 3: which runs may stand in one table, and why the others may not."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from gptexp.config import KINDS
from gptexp.config.fingerprint import DEFAULT_KINDS, matters, settings_that_matter
from gptexp.config.objective import ObjectiveConfig
from gptexp.report.groups import by_text
from gptexp.report.reading import LeftOut, Run
from gptexp.util.errors import RunError

PER_TOKEN = (
    "val/loss",
    "val/perplexity",
    "val/mlm_loss",
    "val/mlm_accuracy",
)  # of a token, so they compare only where tokens are the same
PER_BYTE = "val/bpb"
PATHS = ("data.path", "data.val_path")


class NotComparable(RunError):
    """Nothing is left to compare; one line for the user."""


def key_of(settings: dict[str, Any], also: Iterable[str] = ()) -> str:
    """What two runs of one configuration have in common."""
    return json.dumps(settings_that_matter(settings, also), sort_keys=True, default=str)


def require_metric(runs: Sequence[Run], metric: str) -> None:
    """Refuse a metric that no run has.

    Raises:
        NotComparable: with those that there are.
    """
    names = sorted({name for run in runs for name in run.metrics})
    if runs and metric not in names:
        raise NotComparable(f"--metric={metric}: no run has it; choose one of {', '.join(names)}")


def comparable(
    runs: Sequence[Run], metric: str, also: Iterable[str] = (), preferred: Callable[[Run], bool] = lambda _: False
) -> tuple[list[Run], list[LeftOut]]:
    """The runs that may be compared by this metric, and the others with the reason.

    What most runs share is kept; where `preferred` (the baseline) names runs, what they share is.

    Raises:
        NotComparable: several configurations came in, and the reasons of law 3 leave fewer than two.
    """
    left_out = [_out(run, _without(run, metric)) for run in runs if metric not in run.metrics]
    kept = [run for run in runs if metric in run.metrics]
    before = {key_of(run.settings, also) for run in kept}
    reasons: list[LeftOut] = []
    kept = _keep_one(kept, objective_of, f"another objective, whose {metric} is of something else", preferred, reasons)
    of_one_objective = kept
    kept = _keep_one(kept, _text, "scored on another validation text", preferred, reasons)
    if metric in PER_TOKEN and all(unit_of(run) == "token" for run in kept):
        why = f"another tokenizer, and {metric} is of a token; compare by --metric {PER_BYTE}"
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
    """What a run was trained for; one of before there was a choice was a language model."""
    return str(run.settings.get("objective.kind", DEFAULT_KINDS["objective"]))


def unit_of(run: Run) -> str:
    """Return what the loss of a run is a mean over: token or text."""
    schema: type[ObjectiveConfig] = KINDS["objective"].get(objective_of(run), ObjectiveConfig)
    return schema.unit


def _without(run: Run, metric: str) -> str:
    kind = objective_of(run)
    if kind == DEFAULT_KINDS["objective"]:
        return f"its result.json has no {metric}"
    return f"objective={kind} has no {metric}; it has {', '.join(sorted(run.metrics))}"


def _text(run: Run) -> Hashable:
    return run.text_sha256


def tokens_of(run: Run) -> Hashable:
    """What tells tokenizers apart: their settings, and into how many tokens they cut the same text."""
    own = (key for key in run.settings if key.startswith("tokenizer.") and matters(key))
    flat = sorted((key, str(run.settings[key])) for key in own)
    return (run.val_tokens, *flat)


def _keep_one(
    runs: list[Run],
    kind: Callable[[Run], Hashable],
    why: str,
    preferred: Callable[[Run], bool],
    reasons: list[LeftOut],
) -> list[Run]:
    """Keep the runs of one kind, that of the baseline or the most frequent; the others go to `reasons`."""
    kinds = Counter(kind(run) for run in [r for r in runs if preferred(r)] or runs)
    if not kinds:
        return runs
    chosen = kinds.most_common(1)[0][0]
    reasons += [_out(run, why) for run in runs if kind(run) != chosen]
    return [run for run in runs if kind(run) == chosen]


def _newest(runs: list[Run], also: Iterable[str]) -> tuple[list[Run], list[LeftOut]]:
    """Of runs with the same settings and seed the one that finished last."""
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


def told_apart_by_data(runs: Sequence[Run]) -> list[Run]:
    """Configurations by what the text is, not by where it lies.

    Runs whose settings agree but whose text doesn't (a file was edited between them) become two configurations; runs
    of the same text under two paths become one.
    """
    runs = _with_one_path(runs)
    texts: dict[str, set[str]] = {}
    for run in runs:
        texts.setdefault(key_of(run.settings), set()).add(run.origin.get("data", ""))
    return [_with_data(run) if len(texts[key_of(run.settings)]) > 1 else run for run in runs]


def _with_one_path(runs: Sequence[Run]) -> list[Run]:
    """The fingerprint of the data says that it is the same: then the paths are those of the first run."""
    first: dict[str, dict[str, Any]] = {}
    moved = []
    for run in runs:
        paths = {key: run.settings[key] for key in PATHS if key in run.settings}
        same = first.setdefault(run.origin["data"], paths) if run.origin.get("data") else paths
        moved.append(replace(run, settings={**run.settings, **same}) if paths.keys() == same.keys() else run)
    return moved


def _with_data(run: Run) -> Run:
    return replace(run, settings={**run.settings, "data.fingerprint": run.origin.get("data", "")[:8] or None})


def diverged(run: Run, metric: str) -> bool:
    """Whether a finished run's metric is no finite number."""
    return not math.isfinite(run.metrics[metric])
