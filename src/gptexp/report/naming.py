"""The settings that distinguish configurations, as few as possible, and the labels made from them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Protocol, TypeVar

from gptexp.config.fingerprint import matters
from gptexp.report.comparable import NotComparable
from gptexp.report.overrides import GROUPS
from gptexp.util.text import printable, typed_value

Settings = Mapping[str, Any]
MOST_COLUMNS = 3  # settings with a column each; more share one column
MOST_CHANGES = 2  # settings that an ablation changes at a time: one, and a setting that follows it
BASELINE = "baseline"  # label of the baseline of an ablation
ONLY = "one configuration"  # label of a single configuration without swept settings
ABSENT = "–"  # a setting that this kind of model or tokenizer does not have


class Named(Protocol):
    """A configuration that gets a label. presets: those that its runs were started with, by group."""

    settings: dict[str, Any]
    presets: dict[str, str]
    label: str


N = TypeVar("N", bound=Named)


def value_in(settings: Settings, key: str) -> str:
    """Return a setting as text; null and absent are both –, since configurations of one kind never differ in that."""
    value = settings.get(key)
    return ABSENT if value is None else typed_value(value)


def differing(configurations: Sequence[Settings]) -> list[str]:
    """Return the settings in which the configurations differ: kinds first, then in the order of config.yaml."""
    keys = list(dict.fromkeys(key for settings in configurations for key in settings))
    varied = [key for key in keys if len({value_in(settings, key) for settings in configurations}) > 1]
    return sorted(varied, key=lambda key: not is_choice(key))


def distinguishing(configurations: Sequence[Settings], first: Iterable[str] = ()) -> tuple[list[str], list[str]]:
    """Return a small set of settings that distinguishes all configurations, and the others that vary with them.

    first: settings to include in any case. The search is greedy: each step adds the setting that makes the most
    classes of equal configurations.
    """
    candidates = differing(configurations)
    taken = list(dict.fromkeys(first))
    while _classes(configurations, taken) < len(configurations):
        best = max(candidates, key=lambda key: _classes(configurations, [*taken, key]), default=None)
        if best is None or _classes(configurations, [*taken, best]) == _classes(configurations, taken):
            break
        taken.append(best)
    kinds = [f"{key.rpartition('.')[0]}.kind" for key in taken]  # a value such as 512 is ambiguous without the kind
    taken += [kind for kind in kinds if kind in candidates and kind not in taken and _group(kind) not in taken]
    order = [*dict.fromkeys(first), *(key for key in candidates if key in taken and key not in set(first))]
    return order, [key for key in candidates if key not in order and not _implied(configurations, order, key)]


def _implied(configurations: Sequence[Settings], taken: Sequence[str], key: str) -> bool:
    """Whether a setting differs only because other kinds lack it, or because a preset sets it."""
    if _group(key) in taken:
        return True
    having = {value_in(settings, key) for settings in configurations if key in settings}
    return f"{key.rpartition('.')[0]}.kind" in taken and len(having) == 1


def _group(key: str) -> str:
    return key.partition(".")[0]


def is_choice(key: str) -> bool:
    """Whether a setting selects an alternative of a group: its kind or a preset."""
    return key.endswith(".kind") or key in GROUPS


def _classes(configurations: Sequence[Settings], keys: Sequence[str]) -> int:
    return len({tuple(value_in(settings, key) for key in keys) for settings in configurations})


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return `n_layer` for model.n_layer and `tokenizer` for tokenizer.kind, unless two keys would share the name."""
    names = {
        key: (group if leaf == "kind" else leaf) or key for key in keys for group, _, leaf in [key.rpartition(".")]
    }
    counts = list(names.values())
    return {key: printable(name if counts.count(name) == 1 else key) for key, name in names.items()}


def label(settings: Settings, keys: Sequence[str]) -> str:
    """Return the label of a configuration, such as `bpe, vocab_size 512`."""
    names = short_names(keys)
    parts = []
    for key in keys:
        value = value_in(settings, key)
        if is_choice(key):
            parts.append(value)
        elif value != ABSENT or len(keys) == 1:
            parts.append(f"{names[key]} {value}")
    return ", ".join(parts) or ONLY


def changed(settings: Settings, baseline: Settings, keys: Sequence[str]) -> list[str]:
    """Return the settings in which a configuration differs from the baseline."""
    return [key for key in keys if value_in(settings, key) != value_in(baseline, key)]


def center_of_ablation(configurations: Sequence[Settings], keys: Sequence[str]) -> int | None:
    """Return the index of the configuration from which each other one changes one or two settings, or None.

    With few settings the rows are a grid, and the table shows all values.
    """
    if len(keys) <= MOST_COLUMNS:
        return None
    changes = [[len(changed(other, one, keys)) for other in configurations] for one in configurations]
    center = min(range(len(changes)), key=lambda index: sum(changes[index]))
    return center if max(changes[center]) <= MOST_CHANGES else None


def named_and_sorted(
    rows: Sequence[N], by: Sequence[str], swept: Sequence[str]
) -> tuple[list[N], list[str], list[str]]:
    """Sort and label the rows; return them, the settings that distinguish them, and those that vary along.

    swept: keys by which sweeps distinguished the runs; they come after `by`.
    """
    for group in _distinguishing_presets(rows):
        for row in rows:
            row.settings = {group: row.presets[group], **row.settings}
    configurations = [row.settings for row in rows]
    varied = differing(configurations)
    first = dict.fromkeys([*by, *(key for key in swept if key in varied), *(key for key in varied if "." not in key)])
    keys, along = distinguishing(configurations, list(first))
    rows = [rows[index] for index in in_order(configurations, keys)]
    for row in rows:
        row.label = label(row.settings, keys)
    if len(rows) == 1:  # the jobs of its sweep that will distinguish it are not complete
        (row,) = rows
        known = [key for key in swept if key in row.settings or key in row.presets]
        row.label = label({**row.presets, **row.settings}, known) if known else ONLY
    return rows, keys, along


def _distinguishing_presets(rows: Sequence[Named]) -> list[str]:
    """The groups for which each row was started with a preset, and not all with the same one."""
    shared = set.intersection(*(set(row.presets) for row in rows)) if rows else set()
    return [group for group in GROUPS if group in shared and len({row.presets[group] for row in rows}) > 1]


def named_by_change(rows: Sequence[N], baseline: N, keys: Sequence[str]) -> list[N]:
    """Return the rows of an ablation, the baseline first; label the others by their changes, if these are unique."""
    others = [row for row in rows if row is not baseline]
    labels = [label(row.settings, changed(row.settings, baseline.settings, keys)) for row in others]
    if len(set(labels)) == len(others):
        baseline.label = BASELINE
        for row, changes in zip(others, labels, strict=True):
            row.label = changes
    return [baseline, *others]


def number(value: object) -> float | None:
    """Return a setting as a number, or None if it is not a number."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def in_order(configurations: Sequence[Settings], keys: Sequence[str]) -> list[int]:
    """Return the indices that sort configurations by these settings: numbers by size, other values in the order given,
    null first."""
    columns = []
    for key in keys:
        values = [settings.get(key) for settings in configurations]
        found = list(dict.fromkeys(map(typed_value, values)))
        numbers = [number(value) for value in values]
        is_number = all(n is not None or value is None for n, value in zip(numbers, values, strict=True))
        columns.append(
            [-float("inf") if n is None else n for n in numbers]
            if is_number
            else [-1 if v is None else found.index(typed_value(v)) for v in values]
        )
    return sorted(range(len(configurations)), key=lambda index: [column[index] for column in columns])


def resolve(name: str, keys: Iterable[str]) -> str:
    """Return the full name of a setting, from that name, a unique last part (`n_layer`), or a group (`tokenizer`).

    Raises:
        NotComparable: no such setting, or several; the message lists the candidates.
    """
    keys = list(dict.fromkeys(keys))
    if name in keys:
        return name
    if f"{name}.kind" in keys:
        return f"{name}.kind"
    ends = [key for key in keys if key.endswith(f".{name}")]
    ends = [key for key in ends if matters(key)] or ends  # path is data.path: tokenizer.path does not matter
    if len(ends) == 1:
        return ends[0]
    near = get_close_matches(name, [*keys, *(key.rpartition(".")[2] for key in keys)], n=1)
    hint = f"did you mean {near[0]}?" if near else "see their config.yaml"
    hint = f"choose one of {', '.join(ends)}" if ends else hint
    raise NotComparable(f"{name}: no such setting in these runs; {hint}")


def parse_baseline(texts: Sequence[str], keys: Iterable[str]) -> dict[str, str]:
    """Parse `tokenizer=char,n_layer=2`, separated by commas or spaces, into full names and values.

    Raises:
        NotComparable: another form, or no such setting.
    """
    if any(not text.strip() for text in texts):
        raise NotComparable("--baseline: empty; give a setting and its value, such as model.block_size=64")
    wanted = {}
    for part in (part for text in texts for part in re.split(r"[\s,]+(?=[\w.]+=)", text.strip())):
        name, equals, value = part.partition("=")
        if not equals:
            raise NotComparable(f"--baseline={part}: not of the form key=value, several separated by commas")
        wanted[resolve(name, keys)] = value.strip()
    return wanted


def as_option(settings: Settings, keys: Sequence[str]) -> str:
    """Return a configuration as a value for --baseline: `n_layer=2,position=rope`."""
    names = short_names(keys)
    return ",".join(f"{names[key]}={value_in(settings, key)}" for key in keys)


def fits(settings: Settings, wanted: Mapping[str, str]) -> bool:
    """Whether a configuration has these values. Numbers compare by value; that of a group is a preset or a kind."""
    return all(_same(settings.get(key), value) or _is_kind(settings, key, value) for key, value in wanted.items())


def _is_kind(settings: Settings, key: str, value: str) -> bool:
    return key in GROUPS and settings.get(f"{key}.kind") == value


def _same(value: object, text: str) -> bool:
    known = number(value)
    if known is not None:
        try:
            return float(text) == known
        except ValueError:
            return False
    return typed_value(value) == text or (value is None and text == ABSENT)
