"""What tells configurations apart, in as few settings as do it, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from gptexp.config.fingerprint import matters
from gptexp.report.comparable import NotComparable
from gptexp.report.typed import GROUPS
from gptexp.util.text import printable, typed_value

Settings = Mapping[str, Any]
MOST_COLUMNS = 3  # settings that have a column each; more are written as one text
MOST_CHANGES = 2  # settings that an ablation changes at a time: one, and what goes with it
BASELINE = "baseline"  # what it is called where the others go by what they change in it
ONLY = "one configuration"  # where there is no other to tell it from
ABSENT = "–"  # a setting that a model or a tokenizer of this kind doesn't have


def value_in(settings: Settings, key: str) -> str:
    """A setting as text; null and absent look alike, because they tell no two configurations of a kind apart."""
    value = settings.get(key)
    return ABSENT if value is None else typed_value(value)


def differing(configurations: Sequence[Settings]) -> list[str]:
    """The settings in which the configurations differ; kinds first, then in config.yaml's order."""
    keys = list(dict.fromkeys(key for settings in configurations for key in settings))
    varied = [key for key in keys if len({value_in(settings, key) for settings in configurations}) > 1]
    return sorted(varied, key=lambda key: not is_choice(key))


def telling(configurations: Sequence[Settings], first: Iterable[str] = ()) -> tuple[list[str], list[str]]:
    """As few settings as tell all configurations apart, and the others that vary along with them.

    first: settings to take in any case. Greedy: each time the setting that splits the configurations most.
    """
    candidates = differing(configurations)
    taken = list(dict.fromkeys(first))
    while _classes(configurations, taken) < len(configurations):
        best = max(candidates, key=lambda key: _classes(configurations, [*taken, key]), default=None)
        if best is None or _classes(configurations, [*taken, best]) == _classes(configurations, taken):
            break
        taken.append(best)
    kinds = [f"{key.rpartition('.')[0]}.kind" for key in taken]  # 512 alone doesn't say of what
    taken += [kind for kind in kinds if kind in candidates and kind not in taken and _group(kind) not in taken]
    order = [*dict.fromkeys(first), *(key for key in candidates if key in taken and key not in set(first))]
    return order, [key for key in candidates if key not in order and not _implied(configurations, order, key)]


def _implied(configurations: Sequence[Settings], taken: Sequence[str], key: str) -> bool:
    """Whether a setting differs only because other kinds don't have it: the merges' text of a bpe, beside char; or
    because a preset brings it."""
    if _group(key) in taken:
        return True
    having = {value_in(settings, key) for settings in configurations if key in settings}
    return f"{key.rpartition('.')[0]}.kind" in taken and len(having) == 1


def _group(key: str) -> str:
    return key.partition(".")[0]


def is_choice(key: str) -> bool:
    """Whether a setting says which of a group: its kind, or a preset of it."""
    return key.endswith(".kind") or key in GROUPS


def _classes(configurations: Sequence[Settings], keys: Sequence[str]) -> int:
    return len({tuple(value_in(settings, key) for key in keys) for settings in configurations})


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """`model.n_layer` as n_layer and `tokenizer.kind` as tokenizer, where that is no other key's name too."""
    names = {
        key: (group if leaf == "kind" else leaf) or key for key in keys for group, _, leaf in [key.rpartition(".")]
    }
    counts = list(names.values())
    return {key: printable(name if counts.count(name) == 1 else key) for key, name in names.items()}


def label(settings: Settings, keys: Sequence[str]) -> str:
    """A configuration in words: `bpe, vocab_size 512`."""
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
    """The settings in which a configuration is not as the baseline."""
    return [key for key in keys if value_in(settings, key) != value_in(baseline, key)]


def whole_of_ablation(configurations: Sequence[Settings], keys: Sequence[str]) -> int | None:
    """The configuration in which each other one changes a setting or two; None where it isn't so.

    Few settings tell the rows of a grid apart, and all their values are best seen.
    """
    if len(keys) <= MOST_COLUMNS:
        return None
    changes = [[len(changed(other, one, keys)) for other in configurations] for one in configurations]
    whole = min(range(len(changes)), key=lambda index: sum(changes[index]))
    return whole if max(changes[whole]) <= MOST_CHANGES else None


def number(value: object) -> float | None:
    """A setting as a number, if it is one."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def in_order(configurations: Sequence[Settings], keys: Sequence[str]) -> list[int]:
    """Indices that sort configurations by these settings: numbers by size, other values as found, null first."""
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
    """The full name of a setting: itself, the end of just one (`n_layer`), or a group's kind (`tokenizer`).

    Raises:
        NotComparable: none or several, with what there is.
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
    hint = f"did you mean {near[0]}?" if near else "their config.yaml lists them"
    hint = f"say which: {', '.join(ends)}" if ends else hint
    raise NotComparable(f"{name}: no such setting in these runs; {hint}")


def parse_baseline(texts: Sequence[str], keys: Iterable[str]) -> dict[str, str]:
    """`model.block_size=64`, `tokenizer=char,n_layer=2` as full names and values; commas or spaces separate them.

    Raises:
        NotComparable: not of this form, or no such setting.
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


def as_typed(settings: Settings, keys: Sequence[str]) -> str:
    """A configuration as --baseline takes it: `n_layer=2,position=rope`."""
    names = short_names(keys)
    return ",".join(f"{names[key]}={value_in(settings, key)}" for key in keys)


def fits(settings: Settings, wanted: Mapping[str, str]) -> bool:
    """Whether a configuration has these values, as typed: 1e-3 is 0.001; a group's is a preset or a kind."""
    return all(_same(settings.get(key), value) or _is_kind(settings, key, value) for key, value in wanted.items())


def _is_kind(settings: Settings, key: str, value: str) -> bool:
    return key in GROUPS and settings.get(f"{key}.kind") == value


def _same(value: object, typed: str) -> bool:
    known = number(value)
    if known is not None:
        try:
            return float(typed) == known
        except ValueError:
            return False
    return typed_value(value) == typed or (value is None and typed == ABSENT)
