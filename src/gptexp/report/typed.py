"""What the user typed for a run: presets of groups (`model=mini_gpt`), and how far its sweep has come."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from gptexp.config.override_syntax import by_key
from gptexp.runs.layout import PROVENANCE, SWEEP
from gptexp.runs.provenance import read_provenance
from gptexp.runs.result import is_finished
from gptexp.util.files import TEXT_BYTES
from gptexp.util.yaml_files import read_yaml

GROUPS = ("model", "tokenizer", "data", "objective", "finetune", "optimizer", "schedule")
PRESET = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class Progress:
    """A sweep's folder, and how many of its jobs are done."""

    folder: Path
    done: int
    total: int


def typed(folder: Path) -> dict[str, str]:
    """The overrides of a run by key: of its job where a sweep made it, and the presets of its command line."""
    given = {key: value for key, value in _command(folder) if key in GROUPS and PRESET.fullmatch(value)}
    return given | _sweep(folder.parent).jobs.get(folder.name, {})


def presets(folders: Sequence[Path]) -> dict[str, str]:
    """The presets that all of these runs were started with."""
    if not folders:
        return {}
    first, *others = (typed(folder) for folder in folders)
    return {key: first[key] for key in GROUPS if key in first and all(o.get(key) == first[key] for o in others)}


def swept(folders: Iterable[Path]) -> list[str]:
    """The keys by which sweeps told these runs apart, in the order that they were typed in."""
    return list(dict.fromkeys(key for folder in folders for key in _sweep(folder.parent).jobs.get(folder.name, {})))


def rank(folder: Path) -> int:
    """The place of a run among the jobs of its sweep, in the order that their values were typed in."""
    names = list(_sweep(folder.parent).jobs)
    return names.index(folder.name) if folder.name in names else len(names)


def unfinished_sweeps(folders: Iterable[Path]) -> list[Progress]:
    """The sweeps that these run folders belong to and that have jobs left."""
    found = []
    for parent in dict.fromkeys(folder.parent for folder in folders):
        sweep = _sweep(parent)
        done = sum(is_finished(parent / name) for name in sweep.jobs)
        if done < sweep.total:
            found.append(Progress(parent, done, sweep.total))
    return found


def _command(folder: Path) -> list[tuple[str, str]]:
    """`key=value` of the command line in provenance.json; none where there is none to read."""
    try:
        words = shlex.split(read_provenance(folder / PROVENANCE).command)
    except (OSError, ValueError):
        return []
    return [(key, value) for key, equals, value in (word.partition("=") for word in words) if equals]


@dataclass(frozen=True)
class _Sweep:
    """jobs: what each was given, by the name of its folder, in their order. total: jobs in all."""

    jobs: dict[str, dict[str, str]]
    total: int


_NONE = _Sweep({}, 0)


def _sweep(parent: Path) -> _Sweep:
    """What the sweep.yaml beside a run says; nothing where no sweep wrote it."""
    try:
        return _read(parent / SWEEP, (parent / SWEEP).stat().st_mtime_ns)
    except OSError:
        return _NONE


@lru_cache(maxsize=64)
def _read(path: Path, _changed: int) -> _Sweep:
    try:
        stored = read_yaml(path, at_most=TEXT_BYTES)
    except (OSError, ValueError):
        return _NONE
    listed = stored.get("jobs") if isinstance(stored, dict) else None
    jobs: dict[str, dict[str, str]] = {}
    for job in listed if isinstance(listed, list) else []:
        if isinstance(job, dict) and isinstance(job.get("name"), str) and isinstance(job.get("overrides"), list):
            with suppress(ValueError):  # no override
                jobs[job["name"]] = by_key(map(str, job["overrides"]))
    search = stored.get("search") if isinstance(stored, dict) else None
    trials = search.get("n_trials") if isinstance(search, dict) else None
    return _Sweep(jobs, max(len(jobs), trials if isinstance(trials, int) else 0))
