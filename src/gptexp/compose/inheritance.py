"""`resume=RUN` and `init_from=RUN`: another run's settings as the base of the composition. No torch."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from gptexp.compose import trust
from gptexp.config import KINDS, Config, ObjectiveConfig, TrainerConfig, require_safe_name
from gptexp.config.conversion import from_plain, to_plain
from gptexp.config.fingerprint import computing_plugins, flatten
from gptexp.config.override_syntax import by_key, key_of, quote
from gptexp.machine import slurm
from gptexp.runs import huggingface
from gptexp.runs.finding import find_checkpoint, stored_settings
from gptexp.runs.layout import has_checkpoint, run_folder
from gptexp.runs.result import is_finished
from gptexp.util.errors import ConfigError, RunError
from gptexp.util.files import user_path

SOURCE_GROUPS = {
    "resume": (
        "model",
        "tokenizer",
        "data",
        "objective",
        "optimizer",
        "schedule",
        "finetune",
        "callbacks",
        "logger",
    ),
    "init_from": ("model", "tokenizer"),
}
HARDWARE = {"accelerator", "devices", "num_nodes", "strategy", "compile"}  # never taken from a source
# What may differ from the interrupted run: how long, on what, where to; never what is computed.
FREE_ON_RESUME = {
    *(f"trainer.{name}" for name in HARDWARE),
    "trainer.max_steps",
    "trainer.log_every_steps",
    "data.num_workers",
    "data.micro_batch_size",
    "data.path",
    "data.val_path",
}
FREE_ON_INIT = {"model.dropout", "model.attn_dropout", "model.block_size"}


def with_source(overrides: list[str]) -> list[str]:
    """With `resume=RUN` or `init_from=RUN`, let that run's settings be the base below the overrides.

    A resumed run that is unfinished goes on in its own folder.
    """
    overrides = _auto_resumed(overrides)
    given = by_key(overrides)
    for verb, brought in SOURCE_GROUPS.items():
        run = given.get(verb, "null")
        if run != "null":
            if verb == "resume":
                _require_own(run)
            run = _resolved(run, given.get("paths.logs", "logs"))
            settings = _source_settings(run)
            if verb == "resume":
                _require_trusted(run, settings, given)
            brought = tuple(group for group in brought if group in settings)  # a file may lack callbacks and logger
            for group in brought:
                _store_source(group, settings[group])
            base = dict.fromkeys(brought, "source") | _base(verb, run, settings, given)
            own = [f"{verb}={quote(run)}" if key_of(o) == verb else o for o in overrides]
            if verb == "resume":  # where its weights first came from stands in its settings
                own = [o for o in own if key_of(o) != "init_from"]
                base["init_from"] = quote(settings["init_from"]) if settings.get("init_from") else "null"
                given = {key: value for key, value in given.items() if key != "init_from"}
            return [f"{key}={value}" for key, value in base.items() if key not in given] + own
    return overrides


def _auto_resumed(overrides: list[str]) -> list[str]:
    """`resume=auto`: the run has one folder, of its name; go on with what is there, or start.

    Raises:
        ConfigError: nothing says which run is meant.
    """
    given = by_key(overrides)
    if given.get("resume", "") != "auto":
        return overrides
    rest = [o for o in overrides if key_of(o) != "resume"]
    if "hydra.run.dir" in given:
        folder = Path(given["hydra.run.dir"])
        if "$" in str(folder):
            raise ConfigError(f"resume=auto: hydra.run.dir={folder}: must be a plain folder, without ${{…}}")
    else:
        job = slurm.job_id()
        name = given.get("name", f"slurm-{job}" if job else None)
        if name is None:
            raise ConfigError("resume=auto: give the run a name=…, by which it is found again")
        try:
            require_safe_name(name)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        folder = Path(given.get("paths.logs", "logs")) / "runs" / name / "auto"
        rest += [f"hydra.run.dir={quote(str(folder))}", *([] if "name" in given else [f"name={name}"])]
    if has_checkpoint(folder):
        if is_finished(folder):
            raise ConfigError(
                f"resume=auto: {folder} contains a finished run, which is never overwritten; "
                f"to train it further, resume={folder} trainer.max_steps=…; for another run, another name=…"
            )
        return [f"resume={quote(str(folder))}", *rest]
    return rest


def _base(verb: str, run: str, settings: dict[str, Any], given: dict[str, str]) -> dict[str, str]:
    """What a source says besides whole groups: by value, and below what the user has given."""
    if verb == "init_from":
        name = {"name": quote(f"{settings['name']}-${{hydra:runtime.choices.data}}")}
        return name | _attention(settings, given)
    named = {"seed": str(settings["seed"]), "name": quote(settings["name"])}
    named |= _attention(settings, given)
    return {**named, **_trainer_settings(settings["trainer"]), **_own_folder(run)}


def _attention(settings: dict[str, Any], given: dict[str, str]) -> dict[str, str]:
    """A classifier looks at its text as the transformer that it starts from does."""
    schema: type[ObjectiveConfig] = KINDS["objective"].get(given.get("objective", "lm"), ObjectiveConfig)
    follows = schema.follows_attention and not _objective(settings).causal
    return {"objective.bidirectional": "true"} if follows else {}


def _objective(settings: dict[str, Any]) -> ObjectiveConfig:
    return from_plain("objective", settings["objective"])


def _resolved(run: str, logs: str) -> str:
    """`latest` as the folder that it means now, so that nothing later takes another."""
    try:
        found = find_checkpoint(run, Path(logs), weights=False)
    except RunError as error:
        raise ConfigError(str(error)) from None
    return str(run_folder(found) or found) if run == "latest" else run


def _require_own(run: str) -> None:
    """Only a run of ours says how it was trained, and how far."""
    folder = user_path(run, "resume")
    if huggingface.is_published(run) or (huggingface.is_folder(folder) and not has_checkpoint(folder)):
        raise ConfigError(f"resume={run}: is no run of gptexp that could go on; to train it further, init_from={run}")


def _require_trusted(run: str, settings: dict[str, Any], given: dict[str, str]) -> None:
    """A run folder from elsewhere may name any file of this machine, or any address, to read or to write to.

    Raises:
        ConfigError: it lies outside paths.logs, isn't the folder that the user writes to, and names such a thing.
    """
    found, logs = find_checkpoint(run, weights=False), user_path(given.get("paths.logs", "logs"), "paths.logs")
    folder = run_folder(found) or found
    wanted = Path(given["hydra.run.dir"]) if "hydra.run.dir" in given else None
    if trust.is_own(folder, logs) or (wanted is not None and wanted.resolve() == folder.resolve()):
        return
    named = {group: what for group, what in trust.reaching_out(settings).items() if group not in given}
    if named:
        raise ConfigError(
            f"resume={run}: lies outside paths.logs={logs}, and its settings name {' and '.join(named.values())}; if "
            f"you trust them, add paths.logs={quote(str(folder.parent))}, or choose by "
            f"{' '.join(f'{group}=…' for group in named)}"
        )


def _trainer_settings(trainer: dict[str, Any]) -> dict[str, str]:
    """Value by value, so that trainer=cpu or ddp, which say where to compute, can still be chosen."""
    known = {f.name for f in fields(TrainerConfig)} - HARDWARE
    values = {name: trainer[name] for name in known & trainer.keys()}
    return {f"trainer.{name}": "null" if v is None else quote(str(v)) for name, v in values.items()}


def _own_folder(run: str) -> dict[str, str]:
    folder = run_folder(find_checkpoint(run))
    return {} if folder is None or is_finished(folder) else {"hydra.run.dir": quote(str(folder))}


def check_against_source(config: Config) -> None:
    """Refuse, by name, a setting that `resume` or `init_from` can't change.

    Raises:
        ConfigError: naming the setting, the source's value and the one asked for.
    """
    run = config.resume or config.init_from
    if run is None:
        return
    verb = "resume" if config.resume else "init_from"
    free = FREE_ON_RESUME if config.resume else FREE_ON_INIT
    source, wanted = _source_settings(run), to_plain(config)
    groups = [group for group in SOURCE_GROUPS[verb] if group not in ("callbacks", "logger")]
    for group in (*groups, *(("trainer",) if config.resume else ())):
        for key in sorted({*source[group], *wanted[group]}):
            old, new, setting = source[group].get(key), wanted[group].get(key), f"{group}.{key}"
            if old != new and setting not in free:
                was, now = ("null" if value is None else value for value in (old, new))
                raise ConfigError(f"{setting}={now}: {verb}={run} has {was}, which can't change; leave it out")
    if config.resume and "callbacks" in source:
        _check_plugins(run, *(computing_plugins(flatten(settings)) for settings in (source, wanted)))
    if config.init_from:
        _check_objective(config, _objective(source))
    if config.resume and source["seed"] != config.seed:
        raise ConfigError(f"seed={config.seed}: resume={run} has {source['seed']}, which can't change; leave it out")
    if config.init_from and config.model.block_size > source["model"]["block_size"]:
        raise ConfigError(
            f"model.block_size={config.model.block_size}: init_from={run} has {source['model']['block_size']}, "
            "which can only become smaller"
        )


def _check_plugins(run: str, source: dict[str, Any], wanted: dict[str, Any]) -> None:
    """A callback that changes what is computed goes on as it was; the others may come and go."""
    for key in sorted({*source, *wanted}):
        if source.get(key) != wanted.get(key):
            was, now = ("null" if value is None else value for value in (source.get(key), wanted.get(key)))
            raise ConfigError(f"{key}={now}: resume={run} has {was}, which can't change; leave it out")


def _check_objective(config: Config, source: ObjectiveConfig) -> None:
    """Weights can be trained on by another objective, but not by one that sees other tokens."""
    wanted, run = config.objective, config.init_from
    if wanted.masks and not source.masks:
        raise ConfigError(
            f"objective=mlm: init_from={run} was trained with objective={source.kind}, and has no token that masks; "
            "start from a run of objective=mlm, or from scratch"
        )
    if wanted.causal != source.causal:
        sees = "only the tokens before it" if source.causal else "the tokens on both sides"
        remedy = f"objective.bidirectional={str(source.causal is False).lower()}"
        remedy = f"give {remedy}" if wanted.follows_attention else "choose objective=mlm or classification"
        raise ConfigError(f"objective={wanted.kind}: init_from={run} was trained to see {sees}; {remedy}")


def _source_settings(run: str) -> dict[str, Any]:
    try:
        return stored_settings(run)
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from None


def _store_source(group: str, plain: dict[str, Any]) -> None:
    """Offer a source's settings to Hydra as the option `source` of a group."""
    from_plain(group, plain)  # refuses what a stranger may have put there
    kind = f"/{plain['kind']}" if "kind" in plain else ""
    schema = f"/schema/{group}{kind}"
    own = {key: value for key, value in plain.items() if key != "kind"}
    ConfigStore.instance().store(group=group, name="source", node={"defaults": [f"{schema}@_here_", "_self_"], **own})
