"""From a command line with several values to the jobs of a sweep, composed, named and checked (no torch)."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gptexp.compose.commandline import check
from gptexp.compose.composition import Bases, compose, compose_raw
from gptexp.compose.overrides import jobs_of, listed, one_batch_setting, quoted
from gptexp.config import Config, SweepConfig
from gptexp.config.conversion import from_plain, to_plain
from gptexp.config.fingerprint import identity, settings_that_matter
from gptexp.config.override_syntax import by_key, is_swept, key_of, parse, text_of
from gptexp.util.errors import ConfigError

MANY = 30  # jobs whose composition takes long enough to be watched
LONGEST_NAME = 100  # of a job's folder, in bytes


@dataclass(kw_only=True, slots=True)
class Job:
    """One experiment of a sweep. overrides: what tells it from the others. identity: of all settings that matter."""

    name: str
    overrides: list[str]
    identity: str
    config: dict[str, Any]


@dataclass(kw_only=True, slots=True)
class Plan:
    """What a command line asks for. fixed: the settings that all jobs share, flat. hydra: overrides of Hydra's own."""

    name: str
    folder: Path
    settings: SweepConfig
    fixed: dict[str, Any]
    texts: dict[str, str]
    jobs: list[Job]
    hydra: list[str] = field(default_factory=list)
    search: dict[str, Any] | None = None  # what Optuna draws its jobs from


SEARCH = "hydra/sweeper=optuna"


def is_search(overrides: list[str]) -> bool:
    """Whether Optuna chooses the jobs."""
    return by_key(overrides).get("hydra/sweeper") == "optuna"


def plan(arguments: list[str]) -> Plan:
    """Compose every job of a sweep, and check each.

    Raises:
        ConfigError: naming the key, the value and the remedy; nothing has been started or written.
    """
    typed = [quoted(argument, several=True) for argument in arguments]
    given = {parse(override).get_key_element().lstrip("+"): override for override in typed}  # of two the last wins
    overrides = one_batch_setting(list(given.values()))
    if "resume" in by_key(overrides):
        raise ConfigError("resume: a sweep goes on by itself when its command line is given again; leave it out")
    hydra = [override for override in overrides if parse(override).is_hydra_override()]
    own = [listed(override) for override in overrides if not parse(override).is_hydra_override()]
    if several := next((override for override in hydra if is_swept(override)), None):
        raise ConfigError(f"{several}: holds for all jobs of a sweep; give one value")
    base = compose_raw([override for override in own if not is_swept(override)])
    axes = _axes(own, base)
    swept = [key_of(override) for override in axes if is_swept(override)]
    if is_search(hydra):
        return _search(own, axes, swept, hydra)
    if spaces := [override for override in axes if is_swept(override) and not _is_discrete(override)]:
        raise ConfigError(f"{spaces[0]}: is a space to search; add {SEARCH}, or list values")
    fixed, jobs, bases = _fixed(own, axes, swept), jobs_of(axes), Bases()
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
    """The jobs, with a bar while many are composed; with one line where standard error is no terminal."""
    from rich.console import Console
    from rich.progress import track  # takes long to import, and every command imports this module

    console = Console(stderr=True, highlight=False)
    many = len(jobs) >= MANY
    if many and not console.is_terminal:
        console.print(f"composing {len(jobs):,} jobs …")
    return track(jobs, "composing", console=console, transient=True, disable=not (many and console.is_terminal))


def _search(own: list[str], axes: list[str], swept: list[str], hydra: list[str]) -> Plan:
    """A sweep without jobs yet. Its space is fixed: a search of another space is another search."""
    fixed = [override for override in own if not is_swept(override)]
    config = _composed(fixed)
    space = {key_of(o): text_of(o) for o in axes if is_swept(o)}
    for key in space:
        if key.startswith(("objective", "data.val_")) or key == "data":
            raise ConfigError(f"{key}: changes what is scored, so a search could not tell better from easier")
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
    """Hydra's overrides without the folders, which are the plan's."""
    return [o for o in hydra if key_of(o) not in ("hydra.sweep.dir", "hydra.sweep.subdir", "hydra.run.dir")]


def _is_discrete(override: str) -> bool:
    return bool(parse(override).is_discrete_sweep())


def _axes(own: list[str], base: Any) -> list[str]:
    """The preset's axes, below what the user gave, then the user's overrides."""
    given = {key_of(override) for override in own}
    params = base.hydra.sweeper.get("params") or {}
    preset = [f"{key}={value}" for key, value in params.items() if key not in given]
    return [*preset, *own]


def _composed(job: list[str], bases: Bases | None = None) -> Config:
    config = compose(job, bases=bases)
    try:
        check(config)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return config


def _fixed(own: list[str], axes: list[str], swept: list[str]) -> dict[str, Any]:
    """The settings that stay, whichever values of the swept ones are added later."""
    try:
        config = compose([override for override in own if not is_swept(override)])
    except ConfigError:  # what is swept can't be left out: take the first of each
        config = compose(jobs_of(axes)[0])
    flat = settings_that_matter(to_plain(config), also=("seed",))
    return {key: value for key, value in flat.items() if not belongs(key, swept)}


def belongs(key: str, swept: list[str]) -> bool:
    """Whether a setting follows a swept one: itself, or any of a swept group; a model may bring a tokenizer."""
    groups = {*swept, *(["tokenizer"] if "model" in swept else [])}
    return any(key == name or key.startswith(f"{name}.") for name in groups)


def _free_name(swept: list[str], fixed: dict[str, Any]) -> str:
    if not swept:
        raise ConfigError("-m: no setting has several values; give some, as in seed=1,2,3, or leave -m out")
    short = hashlib.sha256(json.dumps(fixed, sort_keys=True, default=str).encode()).hexdigest()[:6]
    return f"{'+'.join(_leaves(swept).values())}-{short}"[-LONGEST_NAME:]


def _folder(name: str, config: Config, hydra: list[str]) -> Path:
    chosen = by_key(hydra).get("hydra.sweep.dir")
    if chosen is not None:
        if "$" in chosen:
            raise ConfigError(f"hydra.sweep.dir={chosen}: must be a plain folder, without ${{…}}")
        return Path(chosen).resolve()
    if not safe_name(name):
        raise ConfigError(f"sweep.name={name}: becomes a folder name; give it letters or digits")
    return Path(config.paths.logs) / "sweeps" / safe_name(name)


def _leaves(keys: list[str]) -> dict[str, str]:
    """The last word of each key, or all of it where two would be the same."""
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
            continue  # the same experiment twice, as in 0.001,1e-3
        taken.add(name)
        known.add(settings)
        jobs.append(replace(job, name=name, config=job.config | {"name": name}))
    return jobs


def make_job(name: str, overrides: list[str], config: Config) -> Job:
    """A composed experiment as a job to store."""
    plain = {key: value for key, value in to_plain(config).items() if key != "sweep"}
    return Job(name=name, overrides=overrides, identity=identity(plain, seed=True), config=plain | {"name": name})


def plan_of_one(config: Config) -> Plan:
    """A single run, for what is said of plans."""
    job = make_job(config.name, [], config)
    folder = Path(config.paths.logs) / "runs" / config.name
    return Plan(name=config.name, folder=folder, settings=config.sweep, fixed={}, texts={}, jobs=[job])


def natural_rates(jobs: list[Job]) -> list[float]:
    """The different peak learning rates that `optimizer.lr: null` means for these jobs' models, in their order."""
    models = [job.config["model"] for job in jobs if job.config["optimizer"]["lr"] is None]
    different = {json.dumps(model, sort_keys=True): model for model in models}
    return list(dict.fromkeys(from_plain("model", model).natural_lr for model in different.values()))


def safe_name(name: str) -> str:
    """A folder's name: letters, digits and a few signs; never a path."""
    return re.sub(r"[^\w.+=,-]+", "-", name).strip(".-")


def text_key(data: Mapping[str, Any]) -> str:
    """What names a corpus among a sweep's texts, from the settings data.*."""
    names = ("path", "encoding", "dataset", "subset", "split", "revision", "data_files", "val_path", "val_split")
    return " ".join([str(data.get("kind")), *(str(data[name]) for name in names if data.get(name))])


def _texts(configs: list[Config]) -> dict[str, str]:
    """A fingerprint of each corpus' bytes, so that a sweep doesn't go on with another text."""
    from gptexp.data.corpora import open_corpus

    found: dict[str, str] = {}
    for config in configs:
        if (key := text_key(to_plain(config.data))) not in found:
            found[key] = open_corpus(config.data, Path(config.paths.cache)).fingerprint()
    return found
