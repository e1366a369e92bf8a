"""The jobs of a sweep from its command line: composed, named and checked (no torch)."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

from omegaconf import DictConfig

from gptexp.compose.commandline import check
from gptexp.compose.composition import Bases, check_hydra, compose, compose_raw
from gptexp.compose.lengths import one_length, same_length, without_replaced
from gptexp.compose.overrides import jobs_of, listed, one_batch_setting, quoted
from gptexp.config import Config
from gptexp.config.conversion import from_plain, to_plain
from gptexp.config.fingerprint import identity, settings_that_matter
from gptexp.config.override_syntax import by_key, is_swept, key_of, parse, text_of
from gptexp.config.sweep import SweepConfig
from gptexp.util.errors import ConfigError

MANY = 30  # jobs from which composition shows its progress
LONGEST_NAME = 100  # bytes in the name of a job's folder


@dataclass(kw_only=True, slots=True)
class Job:
    """One experiment of a sweep.

    overrides: the settings that distinguish it from other jobs. identity: a hash of all settings that affect results.
    """

    name: str
    overrides: list[str]
    identity: str
    config: dict[str, Any]


class Search(TypedDict):
    """What Optuna needs to choose jobs. space: Hydra's texts by key. base: the overrides that all jobs share."""

    space: dict[str, str]
    base: list[str]
    seed: int
    n_trials: int


@dataclass(kw_only=True, slots=True)
class Plan:
    """A sweep as its command line describes it.

    fixed: settings that all jobs share, flat. texts: fingerprint of each corpus. hydra: overrides of Hydra's settings.
    search: what Optuna needs to choose the jobs; None without Optuna.
    """

    name: str
    folder: Path
    settings: SweepConfig
    fixed: dict[str, Any]
    texts: dict[str, str]
    jobs: list[Job]
    hydra: list[str] = field(default_factory=list)
    search: Search | None = None


SEARCH = "hydra/sweeper=optuna"


def is_search(overrides: list[str]) -> bool:
    """Return whether Optuna chooses the jobs."""
    return by_key(overrides).get("hydra/sweeper") == "optuna"


def plan(arguments: list[str]) -> Plan:
    """Compose and check every job of a sweep; nothing is started or written.

    Raises:
        ConfigError: with key, value and remedy.
    """
    typed = [quoted(argument, several=True) for argument in arguments]
    given = {parse(override).get_key_element().lstrip("+"): override for override in typed}  # the last of two wins
    overrides = one_batch_setting(list(given.values()))
    one_length(overrides)  # two are refused before the jobs are composed
    if "resume" in by_key(overrides):
        raise ConfigError("resume: a sweep continues when its command line is repeated; leave out resume")
    hydra = [override for override in overrides if parse(override).is_hydra_override()]
    settings_given = [listed(override) for override in overrides if not parse(override).is_hydra_override()]
    if several := next((override for override in hydra if is_swept(override)), None):
        raise ConfigError(f"{several}: applies to all jobs of a sweep; give one value")
    check_hydra(hydra)
    base = compose_raw([override for override in settings_given if not is_swept(override)])
    axes = _axes(settings_given, base)
    swept = [key_of(override) for override in axes if is_swept(override)]
    if is_search(hydra):
        return _search(settings_given, axes, swept, hydra)
    if spaces := [override for override in axes if is_swept(override) and not _is_discrete(override)]:
        raise ConfigError(f"{spaces[0]}: is a search space; add {SEARCH}, or list values")
    fixed, jobs, bases = _fixed(settings_given, axes, swept), jobs_of(axes), Bases()
    configs = [_composed(job, bases) for job in _watched(jobs)]
    settings = configs[0].sweep
    name = settings.name or _free_name(swept, fixed)
    return Plan(
        name=name,
        folder=_folder(name, configs[0], hydra),
        settings=settings,
        fixed=fixed,
        texts=_texts(configs),
        jobs=_named(swept, [[o for o in job if key_of(o) in swept] for job in jobs], configs),
        hydra=_launching(hydra),
    )


def _watched(jobs: list[list[str]]) -> Iterable[list[str]]:
    """Return the jobs, with a progress bar if there are many; with one line if standard error is no terminal."""
    from rich.console import Console  # slow to import, and every command imports this module
    from rich.progress import track

    console = Console(stderr=True, highlight=False)
    many = len(jobs) >= MANY
    if many and not console.is_terminal:
        console.print(f"composing {len(jobs):,} jobs …")
    return track(jobs, "composing", console=console, transient=True, disable=not (many and console.is_terminal))


def _search(overrides: list[str], axes: list[str], swept: list[str], hydra: list[str]) -> Plan:
    """Return a plan without jobs. Its space is fixed: a search of another space is another search."""
    fixed = [override for override in overrides if not is_swept(override)]
    config = _composed(fixed)
    space = {key_of(o): text_of(o) for o in axes if is_swept(o)}
    for key in space:
        if key.startswith(("objective", "data.val_")) or key == "data":
            raise ConfigError(f"{key}: changes what is scored, so scores of a search would not be comparable")
    flat = settings_that_matter(to_plain(config), also=("seed",))
    known = {key: value for key, value in flat.items() if not belongs(key, swept)} | {"space": space}
    name = config.sweep.name or _free_name(swept, known)
    return Plan(
        name=name,
        folder=_folder(name, config, hydra),
        settings=config.sweep,
        fixed=known,
        texts=_texts([config]),
        jobs=[],
        hydra=_launching(hydra),
        search={"space": space, "base": fixed, "seed": config.seed, "n_trials": config.sweep.n_trials},
    )


def _launching(hydra: list[str]) -> list[str]:
    """Return Hydra's overrides without the folders, which the plan sets."""
    return [o for o in hydra if key_of(o) not in ("hydra.sweep.dir", "hydra.sweep.subdir", "hydra.run.dir")]


def _is_discrete(override: str) -> bool:
    return bool(parse(override).is_discrete_sweep())


def _axes(overrides: list[str], base: DictConfig) -> list[str]:
    """Return the axes of the preset that the user does not override, then the user's overrides."""
    given = {key_of(override) for override in overrides}
    params = base.hydra.sweeper.get("params") or {}
    preset = [f"{key}={value}" for key, value in params.items() if key not in given]
    return [*without_replaced(preset, overrides), *overrides]


def _composed(job: list[str], bases: Bases | None = None) -> Config:
    config = compose(job, bases=bases)
    try:
        check(config)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return config


def _fixed(overrides: list[str], axes: list[str], swept: list[str]) -> dict[str, Any]:
    """Return the settings that do not depend on the swept ones."""
    try:
        config = compose([override for override in overrides if not is_swept(override)])
    except ConfigError:  # a swept setting is required: use the first value of each
        config = compose(jobs_of(axes)[0])
    flat = settings_that_matter(to_plain(config), also=("seed",))
    return {key: value for key, value in flat.items() if not belongs(key, swept)}


def belongs(key: str, swept: list[str]) -> bool:
    """Return whether a setting is swept, or in a swept group. A model preset may also set the tokenizer."""
    groups = {*swept, *(["tokenizer"] if "model" in swept else []), *same_length(swept)}
    return any(key == name or key.startswith(f"{name}.") for name in groups)


def _free_name(swept: list[str], fixed: dict[str, Any]) -> str:
    if not swept:
        raise ConfigError("-m: no setting has several values; give some, as in seed=1,2,3, or leave out -m")
    short = hashlib.sha256(json.dumps(fixed, sort_keys=True, default=str).encode()).hexdigest()[:6]
    return f"{'+'.join(_leaves(swept).values())}-{short}"[-LONGEST_NAME:]


def _folder(name: str, config: Config, hydra: list[str]) -> Path:
    chosen = by_key(hydra).get("hydra.sweep.dir")
    if chosen is not None:
        if "$" in chosen:
            raise ConfigError(f"hydra.sweep.dir={chosen}: must be a folder name without ${{…}}")
        return Path(chosen).resolve()
    if not safe_name(name):
        raise ConfigError(f"sweep.name={name}: must contain letters or digits, because it names a folder")
    return Path(config.paths.logs) / "sweeps" / safe_name(name)


def _leaves(keys: list[str]) -> dict[str, str]:
    """Return the last part of each key, or the whole key where two last parts are equal."""
    last = {key: key.rpartition(".")[2] for key in keys}
    often = Counter(last.values())
    return {key: leaf if often[leaf] == 1 else key for key, leaf in last.items()}


def _named(swept: list[str], parts: list[list[str]], configs: list[Config]) -> list[Job]:
    leaves, jobs, taken, known = _leaves(swept), list[Job](), set[str](), set[str]()
    for part, config in zip(parts, configs, strict=True):
        job = make_job("", part, config)
        name = safe_name(",".join(f"{leaves[key]}={value}" for key, value in by_key(part).items())) or "job"
        if len(name.encode()) > LONGEST_NAME or name in taken:
            name = f"{name.encode()[: LONGEST_NAME - 9].decode(errors='ignore')}-{job.identity}"
        settings = json.dumps(job.config, sort_keys=True)
        if name in taken or settings in known:
            continue  # a duplicate, as in 0.001,1e-3
        taken.add(name)
        known.add(settings)
        jobs.append(replace(job, name=name, config=job.config | {"name": name}))
    return jobs


def make_job(name: str, overrides: list[str], config: Config) -> Job:
    """Return a composed experiment as a job to store."""
    settings = {key: value for key, value in to_plain(config).items() if key not in ("sweep", "prepare")}
    return Job(name=name, overrides=overrides, identity=identity(settings, seed=True), config=settings | {"name": name})


def plan_of_one(config: Config) -> Plan:
    """Return a plan with a single run."""
    job = make_job(config.name, [], config)
    folder = Path(config.paths.logs) / "runs" / config.name
    return Plan(name=config.name, folder=folder, settings=config.sweep, fixed={}, texts={}, jobs=[job])


def natural_rates(jobs: list[Job]) -> list[float]:
    """Return the different peak learning rates that `optimizer.lr: null` gives for the models of these jobs."""
    models = [job.config["model"] for job in jobs if job.config["optimizer"]["lr"] is None]
    different = {json.dumps(model, sort_keys=True): model for model in models}
    return list(dict.fromkeys(from_plain("model", model).default_lr for model in different.values()))


def safe_name(name: str) -> str:
    """Return a folder name: letters, digits and a few signs; never a path."""
    return re.sub(r"[^\w.+=,-]+", "-", name).strip(".-")


def text_key(data: Mapping[str, Any]) -> str:
    """Return a key that identifies a corpus by the settings data.*."""
    names = ("path", "encoding", "dataset", "subset", "split", "revision", "data_files", "val_path", "val_split")
    parts = data.get("parts")
    nested = [f"{name}: {text_key(part)}" for name, part in parts.items()] if isinstance(parts, Mapping) else []
    return " ".join([str(data.get("kind")), *(str(data[name]) for name in names if data.get(name)), *nested])


def _texts(configs: list[Config]) -> dict[str, str]:
    """Return a fingerprint of each corpus, so that a sweep does not continue with another text."""
    from gptexp.data.corpora import open_corpus  # slow to import

    found: dict[str, str] = {}
    for config in configs:
        if (key := text_key(to_plain(config.data))) not in found:
            found[key] = open_corpus(config.data, Path(config.paths.cache)).fingerprint()
    return found
