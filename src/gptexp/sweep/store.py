"""sweep.yaml, which is written before the first job starts; the jobs' folders; how each job stands (no torch)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gptexp.compose.inheritance import FREE_ON_RESUME
from gptexp.config import KINDS, best_by
from gptexp.config.fingerprint import DEFAULT_KINDS, completed, flatten, identity, settings_that_matter
from gptexp.config.sweep import OtherCode
from gptexp.runs.code_hash import code_sha256
from gptexp.runs.layout import SWEEP, has_checkpoint
from gptexp.runs.provenance import code_version, command_line, last_code
from gptexp.runs.result import COMPLETED, FAILED, INTERRUPTED, find_result
from gptexp.runs.writing import locked
from gptexp.sweep.plan import Job, Plan, belongs, safe_name, text_key
from gptexp.util.errors import ConfigError
from gptexp.util.files import TEXT_BYTES, display_path
from gptexp.util.yaml_files import read_yaml, write_yaml

LOCK, FORMAT = ".sweep.lock", 1
SHOWN_DIFFERENCES = 6


@dataclass(kw_only=True, slots=True)
class Sweep:
    """A sweep's folder and what its sweep.yaml holds."""

    folder: Path
    name: str
    retries: int
    fixed: dict[str, Any]
    texts: dict[str, str]
    jobs: list[Job]
    search: dict[str, Any] | None = None  # with Optuna: space, base overrides, seed, n_trials
    code: str | None = None  # the hash of the only code that may train its jobs; null: any

    @property
    def total(self) -> int:
        """Jobs in all, those that a search has yet to draw included."""
        return len(self.jobs) if self.search is None else max(len(self.jobs), int(self.search["n_trials"]))

    def best_by(self, job: Job) -> str:
        """What a job's objective is judged by: val/bpb of a language model."""
        kinds, kind = KINDS["objective"], job.config["objective"].get("kind")
        return best_by(kinds[kind if kind in kinds else DEFAULT_KINDS["objective"]])

    def value(self, job: Job) -> float | None:
        """Return that metric of a job that has ended; None without one."""
        return find_result(self.place(job)).metrics.get(self.best_by(job))

    def place(self, job: Job) -> Path:
        """The job's run folder."""
        return self.folder / job.name

    def status(self, job: Job) -> str:
        """completed, failed, interrupted, started (has a checkpoint) or waiting."""
        place = self.place(job)
        status = find_result(place).status
        if status in (COMPLETED, FAILED, INTERRUPTED):
            return status
        return "started" if has_checkpoint(place) else "waiting"

    def other_code(self) -> list[Job]:
        """The jobs that were last trained by other code than that of this process."""
        return [job for job in self.jobs if last_code(self.place(job)) not in (None, code_sha256())]

    def unfinished(self) -> list[int]:
        """The numbers of the jobs that have not come to their end."""
        return [i for i, job in enumerate(self.jobs) if self.status(job) != "completed"]


def read(folder: Path) -> Sweep:
    """The sweep that is stored in a folder.

    Raises:
        ConfigError: none, or not readable.
    """
    path = folder / SWEEP
    try:
        stored = read_yaml(path, at_most=TEXT_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    except ValueError as error:
        raise _damaged(path, f"is cut short or damaged: no YAML ({str(error).removeprefix(f'{path}: ')})") from None
    if wrong := _wrong(stored):
        raise _damaged(path, wrong)
    kept = {key: stored[key] for key in ("name", "retries", "texts", "search")}
    jobs = [_completed(job) for job in stored["jobs"]]
    younger = _younger(stored["jobs"][0], jobs[0]) if jobs else {}
    code = stored.get("code") or {}
    return Sweep(folder=folder, jobs=jobs, fixed={**stored["fixed"], **younger}, code=code.get("required"), **kept)


def _damaged(path: Path, wrong: str) -> ConfigError:
    return ConfigError(f"{path}: {wrong}; move its folder away, or give another sweep.name")


def _wrong(stored: Any) -> str | None:
    """What keeps the content of a sweep.yaml from being one."""
    if not isinstance(stored, dict) or not stored:
        return "is empty or no sweep"
    if stored.get("format") != FORMAT:
        return f"has format {stored.get('format')}, this gptexp reads {FORMAT}"
    kinds = {"name": str, "retries": int, "fixed": dict, "texts": dict, "jobs": list}
    for key, kind in kinds.items():
        if not isinstance(stored.get(key), kind):
            return f"is cut short or damaged: its `{key}` is {type(stored.get(key)).__name__}, not {kind.__name__}"
    if not all(isinstance(stored.get(key), (dict, type(None))) for key in ("search", "code")) or "search" not in stored:
        return "is cut short or damaged: its `search` or `code` is none that a sweep writes"
    return next((f"job {_name(job)}: is none that a sweep writes" for job in stored["jobs"] if not _is_job(job)), None)


def _name(job: Any) -> Any:
    return job.get("name") if isinstance(job, dict) else job


def _is_job(job: Any) -> bool:
    kinds = {"name": str, "overrides": list, "identity": str, "config": dict}
    whole = isinstance(job, dict) and job.keys() == kinds.keys()
    if not whole or not all(isinstance(job[key], kind) for key, kind in kinds.items()):
        return False
    groups = ("model", "tokenizer", "data", "optimizer", "schedule", "trainer", "callbacks", "logger", "paths")
    return job["name"] == safe_name(job["name"]) and all(isinstance(job["config"].get(key), dict) for key in groups)


def _completed(stored: dict[str, Any]) -> Job:
    """A job with the settings that are younger than it, at their defaults."""
    config = completed(stored["config"])
    return Job(**{**stored, "config": config, "identity": identity(config, seed=True)})


def _younger(stored: dict[str, Any], job: Job) -> dict[str, Any]:
    """The fixed settings that are younger than a sweep, from one of its jobs."""
    swept = [override.partition("=")[0] for override in job.overrides]
    old, now = settings_that_matter(stored["config"]), settings_that_matter(job.config)
    return {key: value for key, value in now.items() if key not in old and not belongs(key, swept)}


def join(plan: Plan) -> Sweep:
    """Write the plan down, or join it to the sweep that its folder holds: new values are new jobs.

    Raises:
        ConfigError: the folder's jobs were made with other settings or another text; the differences are named.
    """
    jobs, texts = list(plan.jobs), plan.texts
    if (plan.folder / SWEEP).exists():
        stored = read(plan.folder)
        if differences := _differences(stored, plan):
            if not plan.settings.overwrite:
                place = display_path(plan.folder)
                raise ConfigError(
                    f"{place}: was made with other settings: {'; '.join(differences)}. Give them as they were, "
                    "or a sweep.name=… of its own, or sweep.overwrite=true to put the old results aside"
                )
            _put_aside(plan.folder)
        else:
            known = {job.name: job for job in plan.jobs}
            jobs = [_updated(job, known.pop(job.name, job)) for job in stored.jobs] + list(known.values())
            texts = {**stored.texts, **texts}
    elif plan.folder.is_dir() and any(path.name != LOCK for path in plan.folder.iterdir()):
        raise ConfigError(f"{display_path(plan.folder)}: holds something that is no sweep; choose another sweep.name")
    sweep = Sweep(
        folder=plan.folder,
        name=plan.name,
        retries=plan.settings.retries,
        fixed=plan.fixed,
        texts=texts,
        jobs=jobs,
        search=plan.search,
        code=code_sha256() if plan.settings.code is OtherCode.strict else None,
    )
    write(sweep)
    return sweep


def _updated(stored: Job, now: Job) -> Job:
    """The stored job; only where and beside what it runs may follow the new command line."""
    config = {**stored.config, **{group: now.config[group] for group in ("callbacks", "logger", "paths")}}
    for setting in FREE_ON_RESUME - {"trainer.max_steps"} | {"tokenizer.path"}:
        group, _, name = setting.partition(".")
        if name in now.config[group]:
            config[group] = {**config[group], name: now.config[group][name]}
    return Job(name=stored.name, overrides=stored.overrides, identity=stored.identity, config=config)


def write(sweep: Sweep) -> None:
    """sweep.yaml, whole or as it was."""
    plain = {
        "format": FORMAT,
        "name": sweep.name,
        "command": command_line(),
        "code": _code() | {"required": sweep.code},
        "retries": sweep.retries,
        "fixed": sweep.fixed,
        "texts": sweep.texts,
        "search": sweep.search,
        "jobs": [asdict(job) for job in sweep.jobs],
    }
    write_yaml(sweep.folder / SWEEP, plain)


def _code() -> dict[str, Any]:
    """Which code composed the sweep; each run's provenance.json says it in full."""
    code = code_version()
    return {
        "gptexp": code.versions["gptexp"],
        "sha256": code.code_sha256,
        "commit": code.git and code.git.commit,
        "changed": bool(code.git and code.git.diff),
    }


def _differences(stored: Sweep, plan: Plan) -> list[str]:
    """What is not as recorded, in words; at most a few."""
    moved = _moved(stored, plan)
    found = _changed(stored.fixed, {key: moved.get(key, value) for key, value in plan.fixed.items()})
    if plan.settings.code is OtherCode.strict and (jobs := stored.other_code()):
        former = (last_code(stored.place(jobs[0])) or "")[:8]
        found += [f"the code of {len(jobs)} of its jobs was {former}, is {code_sha256()[:8]} (sweep.code=strict)"]
    changed = [key for key, was in stored.texts.items() if plan.texts.get(key, was) != was]
    found += [f"the text of data={key.split()[0]} has changed" for key in changed]
    known = {job.name: job for job in stored.jobs}
    for job in plan.jobs:
        if not found and job.name in known:
            was, now = (settings_that_matter(j.config, also=("seed",)) for j in (known[job.name], job))
            changes = _changed(was, {**now, **moved}) or _ignored(stored, known[job.name], job)
            found += [f"in {job.name}, {change}" for change in changes]
    return found[:SHOWN_DIFFERENCES]


def _moved(stored: Sweep, plan: Plan) -> dict[str, Any]:
    """Where the text lay, if it is the same one and lies elsewhere now."""
    if not stored.jobs or not plan.jobs:
        return {}
    was, now = stored.jobs[0].config["data"], plan.jobs[0].config["data"]
    same = stored.texts.get(text_key(was)) == plan.texts.get(text_key(now))
    paths = {f"data.{name}": was[name] for name in ("path", "val_path") if name in was and was[name] != now.get(name)}
    return {key: value for key, value in paths.items() if key in stored.fixed} if same else {}


def _ignored(stored: Sweep, job: Job, now: Job) -> list[str]:
    """Settings of an unfinished job that neither make it another one nor can follow the new command line."""
    if stored.status(job) == "completed":
        return []
    kept, asked = (flatten(j.config) for j in (_updated(job, now), now))
    return _changed(kept, {**asked, "name": kept.get("name"), "resume": kept.get("resume")})


def _changed(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    missing = object()
    keys = [key for key in {**was, **now} if was.get(key, missing) != now.get(key, missing)]
    return [f"{key} was {was.get(key, 'not there')}, is {now.get(key, 'not there')}" for key in keys]


def _put_aside(folder: Path) -> None:
    """Old results stay, under another name; the lock stays where it is held."""
    aside = folder.with_name(f"{folder.name}.before-{time.strftime('%Y-%m-%d_%H-%M-%S')}-{os.getpid()}")
    aside.mkdir()
    paths = [path for path in folder.iterdir() if path.name != LOCK]
    for path in sorted(paths, key=lambda path: path.name == SWEEP):  # sweep.yaml last: killed before, it is done again
        path.replace(aside / path.name)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The sweep's folder, for this process alone.

    Raises:
        ConfigError: another process runs this sweep.
    """
    with locked(folder, LOCK, ConfigError(f"{display_path(folder)}: another process runs this sweep")):
        yield
