"""Which runs one scaling law may be fitted to: those that agree in all but their size and their length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gptexp.config.fingerprint import settings_that_matter
from gptexp.report.comparable import tokens_of
from gptexp.report.naming import label, value_in
from gptexp.report.reading import EFFECTIVE_LR, LeftOut, Run

# What makes a run larger or longer.
SIZES = frozenset(
    {
        "model.n_layer",
        "model.n_embd",
        "model.n_head",
        "model.n_kv_head",
        "model.n_hidden",
        "trainer.max_steps",
        "schedule.warmup_steps",
    }
)
# What may follow the size and the length, but not vary at one of them.
FOLLOWERS = frozenset(
    {"data.global_batch_size", "data.global_batch_tokens", "optimizer.lr", "optimizer.muon_lr", "trainer.precision"}
)
MOST_NAMED = 3  # differences in a reason
Key = tuple[object, ...]


def agreeing(runs: Sequence[Run]) -> tuple[list[Run], list[LeftOut], str]:
    """The largest group of runs that differ in size and length only, the others with the reason, and a note on it.

    Largest: by distinct pairs of parameters and tokens, then by runs.
    """
    groups = _grouped(runs, _rest)
    if not groups:
        return [], [], ""
    group = max(groups, key=lambda group: (len({(run.parameters, run.tokens) for run in group}), len(group)))
    kept = _one_of_each_point(group)
    left_out = [LeftOut(run.folder, _reason(run, group, kept), run.settings) for run in runs if run not in kept]
    if not left_out:
        return kept, [], ""
    names = list(dict.fromkeys(key for run in runs for key in _differences(run, group)))
    told = f" ({label(kept[0].settings, names[:MOST_NAMED])})" if names else ""
    note = (
        f"fitted: {len(kept)} of {len(runs)} runs, the largest group that agrees in all but size and length{told}; "
        "for another group, give its folders only"
    )
    return kept, left_out, note


def _grouped(runs: Iterable[Run], key: Callable[[Run], Key]) -> list[list[Run]]:
    groups: dict[Key, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.values())


def _said(run: Run, keys: Iterable[str]) -> Key:
    return tuple(value_in(run.settings, key) for key in sorted(keys))


def _own(run: Run) -> dict[str, Any]:
    """The settings that must agree."""
    free = SIZES | FOLLOWERS | {EFFECTIVE_LR}  # the rate that a run computed from its size
    return {key: value for key, value in settings_that_matter(run.settings).items() if key not in free}


def _by_rule(run: Run) -> bool:
    """Whether the model's size decides the learning rate."""
    return run.settings.get("optimizer.lr") is None


def _rest(run: Run) -> Key:
    """What must agree: the settings, the tokens that they make of the text, and whether the rate is given."""
    return (tokens_of(run), _by_rule(run), *((key, str(value)) for key, value in sorted(_own(run).items())))


def _one_of_each_point(group: Sequence[Run]) -> list[Run]:
    """Of runs of one size and length with several batches or rates those whose values most runs of that size have."""
    kept: list[Run] = []
    for point in _grouped(group, lambda run: _said(run, SIZES)):
        chosen = _followers(max(point, key=lambda run: _support(run, group)))
        kept += [run for run in point if _followers(run) == chosen]
    return kept


def _followers(run: Run) -> Key:
    return _said(run, FOLLOWERS)


def _support(run: Run, group: Sequence[Run]) -> tuple[int, int]:
    """How many runs have this run's batch and rate: of its model, and of all."""
    alike = [other for other in group if _followers(other) == _followers(run)]
    return sum(other.parameters == run.parameters for other in alike), len(alike)


def _differences(run: Run, group: Sequence[Run]) -> list[str]:
    """The settings in which a run isn't as those of a group, where all of these agree."""
    one = group[0]
    keys = [key for key in {**_own(run), **_own(one)} if value_in(run.settings, key) != value_in(one.settings, key)]
    kinds = {key for key in keys if key.endswith(".kind")}  # which say enough of their groups
    keys = [key for key in keys if key in kinds or f"{key.rpartition('.')[0]}.kind" not in kinds]
    return keys + ["optimizer.lr"] * (_by_rule(run) != _by_rule(one))


def _reason(run: Run, group: Sequence[Run], kept: Sequence[Run]) -> str:
    names, other = _differences(run, group), group[0]
    if not names and run in group:
        other = next(one for one in kept if _said(one, SIZES) == _said(run, SIZES))
        names = [key for key in sorted(FOLLOWERS) if value_in(run.settings, key) != value_in(other.settings, key)]
    if not names:
        return "not of the fitted group: its tokenizer makes other tokens of the text"
    said = [f"{key} is {value_in(run.settings, key)}, not {value_in(other.settings, key)}" for key in names]
    more = f", and {len(said) - MOST_NAMED} more settings" if len(said) > MOST_NAMED else ""
    return f"not of the fitted group: {'; '.join(said[:MOST_NAMED])}{more}"
