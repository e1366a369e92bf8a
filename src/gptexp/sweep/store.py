"""sweep.yaml, written before the first job starts, and the folders and states of the jobs (no torch)."""

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
from gptexp.config.length import LENGTHS, asked
from gptexp.config.sweep import OtherCode
from gptexp.runs.code_hash import all_code_sha256, code_sha256
from gptexp.runs.layout import SWEEP, SWEEP_LOCK, has_checkpoint
from gptexp.runs.provenance import code_version, command_line, last_code
from gptexp.runs.result import COMPLETED, FAILED, INTERRUPTED, find_result
from gptexp.runs.writing import locked
from gptexp.sweep.lengths import resolution_of
from gptexp.sweep.plan import Job, Plan, Search, belongs, safe_name, text_key
from gptexp.training.length import read_steps
from gptexp.util.errors import ConfigError
from gptexp.util.files import TEXT_BYTES, display_path
from gptexp.util.yaml_files import read_yaml, write_yaml

FORMAT = 1
SHOWN_DIFFERENCES = 6


@dataclass(kw_only=True, slots=True)
class Sweep:
    """The folder of a sweep and the content of its sweep.yaml. code: with sweep.code=strict, the required code hash.

    share: whether jobs compute equal first steps once.
    """

    folder: Path
    name: str
    retries: int
    fixed: dict[str, Any]
    texts: dict[str, str]
    jobs: list[Job]
    search: Search | None = None
    code: str | None = None
    share: bool = True

    @property
    def total(self) -> int:
        """Number of jobs, including those that a search has not yet chosen."""
        return len(self.jobs) if self.search is None else max(len(self.jobs), int(self.search["n_trials"]))

    def best_by(self, job: Job) -> str:
        """Return the metric that the job's objective minimizes, such as val/bpb of a language model."""
        kinds, kind = KINDS["objective"], job.config["objective"].get("kind")
        return best_by(kinds[kind if kind in kinds else DEFAULT_KINDS["objective"]])

    def value(self, job: Job) -> float | None:
        """Return that metric of a job that has ended; None without one."""
        return find_result(self.place(job)).metrics.get(self.best_by(job))

    def steps_of(self, job: Job) -> int | None:
        """Return the number of steps of a job; None if its length is not yet resolved."""
        steps = job.config["trainer"]["max_steps"]
        return steps if type(steps) is int else read_steps(self.resolution_of(job), asked(job.config["trainer"]))

    def resolution_of(self, job: Job) -> Path:
        """Return the file in which all seeds of the job's configuration share the number of steps."""
        return resolution_of(self.folder, job)

    def place(self, job: Job) -> Path:
        """Return the job's run folder."""
        return self.folder / job.name

    def status(self, job: Job) -> str:
        """Return completed, failed, interrupted, started (has a checkpoint) or waiting."""
        place = self.place(job)
        status = find_result(place).status
        if status in (COMPLETED, FAILED, INTERRUPTED):
            return status
        return "started" if has_checkpoint(place) else "waiting"

    def other_code(self) -> list[Job]:
        """Return the jobs that were last trained by other code than this process has."""
        return [job for job in self.jobs if last_code(self.place(job)) not in (None, code_sha256(job.config))]

    def unfinished(self) -> list[int]:
        """Return the numbers of the jobs that are not completed."""
        return [i for i, job in enumerate(self.jobs) if self.status(job) != "completed"]


def read(folder: Path) -> Sweep:
    """Read the sweep that is stored in a folder.

    Raises:
        ConfigError: sweep.yaml is missing or not readable.
    """
    path = folder / SWEEP
    try:
        stored = read_yaml(path, at_most=TEXT_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    except ValueError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise _damaged(path, f"is incomplete or damaged: invalid YAML ({reason})") from None
    if wrong := _wrong(stored):
        raise _damaged(path, wrong)
    kept = {key: stored[key] for key in ("name", "retries", "texts", "search")}
    jobs = [_completed(job) for job in stored["jobs"]]
    newer = _newer_settings(stored["jobs"][0], jobs[0]) if jobs else {}
    code, share = stored.get("code") or {}, stored.get("share") is not False
    fixed = {**stored["fixed"], **newer}
    return Sweep(folder=folder, jobs=jobs, fixed=fixed, code=code.get("required"), share=share, **kept)


def _damaged(path: Path, wrong: str) -> ConfigError:
    return ConfigError(f"{path}: {wrong}; move its folder away, or choose another sweep.name")


def _wrong(stored: Any) -> str | None:
    """Return what is wrong with the content of a sweep.yaml, or None."""
    if not isinstance(stored, dict) or not stored:
        return "is empty or not a sweep"
    if stored.get("format") != FORMAT:
        return f"has format {stored.get('format')}, but this version of gptexp reads format {FORMAT}"
    kinds = {"name": str, "retries": int, "fixed": dict, "texts": dict, "jobs": list}
    for key, kind in kinds.items():
        if not isinstance(stored.get(key), kind):
            return f"is incomplete or damaged: `{key}` is {type(stored.get(key)).__name__}, not {kind.__name__}"
    if not all(isinstance(stored.get(key), (dict, type(None))) for key in ("search", "code")) or "search" not in stored:
        return "is incomplete or damaged: `search` or `code` is invalid"
    return next((f"job {_name(job)} is invalid" for job in stored["jobs"] if not _is_job(job)), None)


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
    """Return a job with settings that it does not have at their defaults."""
    config = completed(stored["config"])
    return Job(**{**stored, "config": config, "identity": identity(config, seed=True)})


def _newer_settings(stored: dict[str, Any], job: Job) -> dict[str, Any]:
    """Return the fixed settings that did not exist when the sweep was stored, from one of its jobs."""
    swept = [override.partition("=")[0] for override in job.overrides]
    old, new = settings_that_matter(stored["config"]), settings_that_matter(job.config)
    return {key: value for key, value in new.items() if key not in old and not belongs(key, swept)}


def join(plan: Plan) -> Sweep:
    """Store the plan, or add it to the sweep in its folder: new values become new jobs.

    Raises:
        ConfigError: the stored jobs have other settings or another text; the message lists the differences.
    """
    jobs, texts = list(plan.jobs), plan.texts
    if (plan.folder / SWEEP).exists():
        stored = read(plan.folder)
        if differences := _differences(stored, plan):
            if not plan.settings.overwrite:
                place = display_path(plan.folder)
                raise ConfigError(
                    f"{place}: has other settings: {'; '.join(differences)}. Restore these settings, "
                    "choose another sweep.name, or use sweep.overwrite=true to move the old results to another folder"
                )
            _move_old_results(plan.folder)
        else:
            known = {job.name: job for job in plan.jobs}
            jobs = [_updated(job, known.pop(job.name, job)) for job in stored.jobs] + list(known.values())
            texts = {**stored.texts, **texts}
    elif plan.folder.is_dir() and any(path.name != SWEEP_LOCK for path in plan.folder.iterdir()):
        raise ConfigError(f"{display_path(plan.folder)}: is not empty and not a sweep; choose another sweep.name")
    sweep = Sweep(
        folder=plan.folder,
        name=plan.name,
        retries=plan.settings.retries,
        fixed=plan.fixed,
        texts=texts,
        jobs=jobs,
        search=plan.search,
        code=all_code_sha256() if plan.settings.code is OtherCode.strict else None,
        share=plan.settings.share,
    )
    write(sweep)
    return sweep


def _updated(stored: Job, now: Job) -> Job:
    """Return the stored job with paths, loggers and other settings that may change from the new command line."""
    config = {**stored.config, **{group: now.config[group] for group in ("callbacks", "logger", "paths")}}
    for setting in FREE_ON_RESUME - {f"trainer.{name}" for name in LENGTHS} | {"tokenizer.path"}:
        group, _, name = setting.partition(".")
        if name in now.config[group]:
            config[group] = {**config[group], name: now.config[group][name]}
    return Job(name=stored.name, overrides=stored.overrides, identity=stored.identity, config=config)


def write(sweep: Sweep) -> None:
    """Write sweep.yaml, completely or not at all."""
    content = {
        "format": FORMAT,
        "name": sweep.name,
        "command": command_line(),
        "code": _code() | {"required": sweep.code},
        "retries": sweep.retries,
        "share": sweep.share,
        "fixed": sweep.fixed,
        "texts": sweep.texts,
        "search": sweep.search,
        "jobs": [asdict(job) for job in sweep.jobs],
    }
    write_yaml(sweep.folder / SWEEP, content)


def _code() -> dict[str, Any]:
    """Return which code composed the sweep; provenance.json of each run has the details."""
    code = code_version()
    return {
        "gptexp": code.versions["gptexp"],
        "sha256": code.code_sha256,
        "commit": code.git and code.git.commit,
        "changed": bool(code.git and code.git.diff),
    }


def _differences(stored: Sweep, plan: Plan) -> list[str]:
    """Return descriptions of the differences between a stored sweep and a plan, at most SHOWN_DIFFERENCES."""
    moved = _moved(stored, plan)
    found = _changed(stored.fixed, {key: moved.get(key, value) for key, value in plan.fixed.items()})
    if plan.settings.code is OtherCode.strict and (jobs := stored.other_code()):
        former, new = (last_code(stored.place(jobs[0])) or "")[:8], code_sha256(jobs[0].config)[:8]
        found += [f"the code of {len(jobs)} of its jobs was {former} and is {new} (sweep.code=strict)"]
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
    """Return the former path settings of the text if the text is unchanged and has moved."""
    if not stored.jobs or not plan.jobs:
        return {}
    was, now = stored.jobs[0].config["data"], plan.jobs[0].config["data"]
    same = stored.texts.get(text_key(was)) == plan.texts.get(text_key(now))
    paths = {f"data.{name}": was[name] for name in ("path", "val_path") if name in was and was[name] != now.get(name)}
    return {key: value for key, value in paths.items() if key in stored.fixed} if same else {}


def _ignored(stored: Sweep, job: Job, now: Job) -> list[str]:
    """Return changed settings of an unfinished job that do not identify it and that the stored job cannot adopt."""
    if stored.status(job) == "completed":
        return []
    kept, asked = (flatten(j.config) for j in (_updated(job, now), now))
    return _changed(kept, {**asked, "name": kept.get("name"), "resume": kept.get("resume")})


def _changed(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    missing = object()
    keys = [key for key in {**was, **now} if was.get(key, missing) != now.get(key, missing)]
    return [f"{key} was {was.get(key, 'missing')}, is {now.get(key, 'missing')}" for key in keys]


def _move_old_results(folder: Path) -> None:
    """Move old results to another folder; the lock, which this process holds, stays."""
    aside = folder.with_name(f"{folder.name}.before-{time.strftime('%Y-%m-%d_%H-%M-%S')}-{os.getpid()}")
    aside.mkdir()
    paths = [path for path in folder.iterdir() if path.name != SWEEP_LOCK]
    for path in sorted(paths, key=lambda path: path.name == SWEEP):  # last, so that it is repeated after a kill
        path.replace(aside / path.name)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of the sweep's folder.

    Raises:
        ConfigError: another process runs this sweep.
    """
    with locked(folder, SWEEP_LOCK, ConfigError(f"{display_path(folder)}: another process runs this sweep")):
        yield
