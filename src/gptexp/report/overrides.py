"""The overrides that a run was started with, its presets (`model=mini_gpt`), and the progress of its sweep."""

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
    """A sweep's folder, and how many of its jobs are complete."""

    folder: Path
    done: int
    total: int


def overrides(folder: Path) -> dict[str, str]:
    """Return the overrides of a run by key: those of its job in a sweep, and the presets on its command line."""
    on_command_line = {key: value for key, value in _command(folder) if key in GROUPS and PRESET.fullmatch(value)}
    return on_command_line | _sweep(folder.parent).jobs.get(folder.name, {})


def presets(folders: Sequence[Path]) -> dict[str, str]:
    """Return the presets that all of these runs were started with, by group."""
    if not folders:
        return {}
    first, *others = (overrides(folder) for folder in folders)
    return {key: first[key] for key in GROUPS if key in first and all(o.get(key) == first[key] for o in others)}


def swept(folders: Iterable[Path]) -> list[str]:
    """Return the keys that were swept, in the order of the command line."""
    return list(dict.fromkeys(key for folder in folders for key in _sweep(folder.parent).jobs.get(folder.name, {})))


def rank(folder: Path) -> int:
    """Return the position of a run among the jobs of its sweep."""
    names = list(_sweep(folder.parent).jobs)
    return names.index(folder.name) if folder.name in names else len(names)


def unfinished_sweeps(folders: Iterable[Path]) -> list[Progress]:
    """Return the sweeps of these run folders that have incomplete jobs."""
    found = []
    for parent in dict.fromkeys(folder.parent for folder in folders):
        sweep = _sweep(parent)
        done = sum(is_finished(parent / name) for name in sweep.jobs)
        if done < sweep.total:
            found.append(Progress(parent, done, sweep.total))
    return found


def _command(folder: Path) -> list[tuple[str, str]]:
    """The `key=value` words of the command line in provenance.json, or none if it cannot be read."""
    try:
        words = shlex.split(read_provenance(folder / PROVENANCE).command)
    except (OSError, ValueError):
        return []
    return [(key, value) for key, equals, value in (word.partition("=") for word in words) if equals]


@dataclass(frozen=True)
class _Sweep:
    """jobs: the overrides of each job, by the name of its folder, in order. total: the number of jobs."""

    jobs: dict[str, dict[str, str]]
    total: int


_NONE = _Sweep({}, 0)


def _sweep(parent: Path) -> _Sweep:
    """The content of the sweep.yaml next to a run, or no jobs."""
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
            with suppress(ValueError):  # not an override
                jobs[job["name"]] = by_key(map(str, job["overrides"]))
    search = stored.get("search") if isinstance(stored, dict) else None
    trials = search.get("n_trials") if isinstance(search, dict) else None
    return _Sweep(jobs, max(len(jobs), trials if isinstance(trials, int) else 0))
