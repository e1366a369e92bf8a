"""Selects the runs for one scaling law: runs that differ only in size and length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gptexp.config.fingerprint import settings_that_matter
from gptexp.config.length import LENGTHS
from gptexp.config.trajectory import OWN_RATES
from gptexp.report.comparable import tokens_of
from gptexp.report.naming import label, value_in
from gptexp.report.reading import EFFECTIVE_LR, LeftOut, Run

# Settings that make a run larger or longer.
SIZES = frozenset(
    {
        "model.n_layer",
        "model.n_embd",
        "model.n_head",
        "model.n_kv_head",
        "model.n_hidden",
        *(f"trainer.{name}" for name in LENGTHS),
        "schedule.warmup_steps",
    }
)
# Settings that may depend on size and length, but not vary at the same size and length.
FOLLOWERS = frozenset(
    {
        "data.global_batch_size",
        "data.global_batch_tokens",
        *(f"optimizer.{name}" for name in ("lr", *OWN_RATES)),
        "trainer.precision",
    }
)
MOST_NAMED = 3  # differences that a reason lists
Key = tuple[object, ...]


def agreeing(runs: Sequence[Run]) -> tuple[list[Run], list[LeftOut], str]:
    """Return the largest group of runs that differ only in size and length, the others with reasons, and a note.

    The largest group has the most distinct pairs of parameters and tokens, then the most runs.
    """
    groups = _grouped(runs, _fixed)
    if not groups:
        return [], [], ""
    group = max(groups, key=lambda group: (len({(run.parameters, run.tokens) for run in group}), len(group)))
    kept = _one_of_each_point(group)
    left_out = [LeftOut(run.folder, _reason(run, group, kept), run.settings) for run in runs if run not in kept]
    if not left_out:
        return kept, [], ""
    names = list(dict.fromkeys(key for run in runs for key in _differences(run, group)))
    values = f" ({label(kept[0].settings, names[:MOST_NAMED])})" if names else ""
    note = (
        f"fitted: {len(kept)} of {len(runs)} runs, the largest group that agrees in all but size and length{values}; "
        "to fit another group, give only its folders"
    )
    return kept, left_out, note


def _grouped(runs: Iterable[Run], key: Callable[[Run], Key]) -> list[list[Run]]:
    groups: dict[Key, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.values())


def _values(run: Run, keys: Iterable[str]) -> Key:
    return tuple(value_in(run.settings, key) for key in sorted(keys))


def _fixed_settings(run: Run) -> dict[str, Any]:
    """The settings that must agree."""
    free = SIZES | FOLLOWERS | {EFFECTIVE_LR}  # EFFECTIVE_LR is computed from the size
    return {key: value for key, value in settings_that_matter(run.settings).items() if key not in free}


def _lr_follows_size(run: Run) -> bool:
    """Whether the learning rate is computed from the size of the model."""
    return run.settings.get("optimizer.lr") is None


def _fixed(run: Run) -> Key:
    """A key that must agree: the settings, the tokenization of the text, and whether the learning rate is given."""
    settings = ((key, str(value)) for key, value in sorted(_fixed_settings(run).items()))
    return (tokens_of(run), _lr_follows_size(run), *settings)


def _one_of_each_point(group: Sequence[Run]) -> list[Run]:
    """Keep one batch size and rate for each size and length: the most common ones."""
    kept: list[Run] = []
    for point in _grouped(group, lambda run: _values(run, SIZES)):
        chosen = _followers(max(point, key=lambda run: _support(run, group)))
        kept += [run for run in point if _followers(run) == chosen]
    return kept


def _followers(run: Run) -> Key:
    return _values(run, FOLLOWERS)


def _support(run: Run, group: Sequence[Run]) -> tuple[int, int]:
    """The number of runs with the same batch size and rate: of the same model size, and of all."""
    equal = [other for other in group if _followers(other) == _followers(run)]
    return sum(other.parameters == run.parameters for other in equal), len(equal)


def _differences(run: Run, group: Sequence[Run]) -> list[str]:
    """The settings in which a run differs from a group that agrees in them."""
    one = group[0]
    known = {**_fixed_settings(run), **_fixed_settings(one)}
    keys = [key for key in known if value_in(run.settings, key) != value_in(one.settings, key)]
    kinds = {key for key in keys if key.endswith(".kind")}  # they imply the other settings of their groups
    keys = [key for key in keys if key in kinds or f"{key.rpartition('.')[0]}.kind" not in kinds]
    return keys + ["optimizer.lr"] * (_lr_follows_size(run) != _lr_follows_size(one))


def _reason(run: Run, group: Sequence[Run], kept: Sequence[Run]) -> str:
    names, other = _differences(run, group), group[0]
    if not names and run in group:
        other = next(one for one in kept if _values(one, SIZES) == _values(run, SIZES))
        names = [key for key in sorted(FOLLOWERS) if value_in(run.settings, key) != value_in(other.settings, key)]
    if not names:
        return "not of the fitted group: its tokenizer produces other tokens for the text"
    parts = [f"{key} is {value_in(run.settings, key)}, not {value_in(other.settings, key)}" for key in names]
    more = f", and {len(parts) - MOST_NAMED} more settings" if len(parts) > MOST_NAMED else ""
    return f"not of the fitted group: {'; '.join(parts[:MOST_NAMED])}{more}"
