"""`resume=RUN` and `init_from=RUN`: another run's settings as the base of the composition. No torch."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from gptexp.compose import trust
from gptexp.compose.mixtures import of_one_corpus
from gptexp.config import KINDS, Config, ObjectiveConfig, TrainerConfig, require_safe_name
from gptexp.config.conversion import from_plain, to_plain
from gptexp.config.fingerprint import computing_plugins, flatten
from gptexp.config.length import LENGTHS
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
# Settings that may differ from those of the interrupted run: its length, hardware and files, but not the computation.
FREE_ON_RESUME = {
    *(f"trainer.{name}" for name in HARDWARE),
    *(f"trainer.{name}" for name in LENGTHS),
    "trainer.log_every_steps",
    "trainer.digests",
    "trainer.log_norms",
    "trainer.recompute",
    "data.num_workers",
    "data.micro_batch_size",
    "data.path",
    "data.val_path",
}
FREE_ON_INIT = {"model.dropout", "model.attn_dropout", "model.block_size"}


def with_source(overrides: list[str]) -> list[str]:
    """Return the overrides with those that set the settings of the source, the run of `resume` or `init_from`.

    Overrides that the user gave take precedence. An unfinished run resumes in its folder.

    Raises:
        ConfigError: the source is missing, unreadable, untrusted or not a gptexp run.
    """
    overrides = _auto_resumed(overrides)
    given = by_key(overrides)
    for verb, brought in SOURCE_GROUPS.items():
        run = given.get(verb, "null")
        if run != "null":
            if verb == "resume":
                _require_gptexp_run(run)
            run = _resolved(run, given.get("paths.logs", "logs"))
            settings = _source_settings(run)
            if verb == "resume":
                _require_trusted(run, settings, given)
            # A checkpoint file without its run folder has neither callbacks nor logger.
            brought = tuple(group for group in brought if group in settings)
            for group in brought:
                _store_source(group, settings[group])
            base = dict.fromkeys(brought, "source") | _base(verb, run, settings, given)
            rest = [f"{verb}={quote(run)}" if key_of(o) == verb else o for o in overrides]
            if verb == "resume":  # its settings contain the init_from of its first start
                rest = [o for o in rest if key_of(o) != "init_from"]
                base["init_from"] = quote(settings["init_from"]) if settings.get("init_from") else "null"
                given = {key: value for key, value in given.items() if key != "init_from"}
            return [f"{key}={value}" for key, value in base.items() if key not in given] + rest
    return overrides


def _auto_resumed(overrides: list[str]) -> list[str]:
    """Replace `resume=auto` by the folder of the run's name, and resume from it if it has a checkpoint.

    Raises:
        ConfigError: the run has no name, or is finished.
    """
    given = by_key(overrides)
    if given.get("resume", "") != "auto":
        return overrides
    rest = [o for o in overrides if key_of(o) != "resume"]
    if "hydra.run.dir" in given:
        folder = Path(given["hydra.run.dir"])
        if "$" in str(folder):
            raise ConfigError(f"resume=auto: hydra.run.dir={folder}: must be a folder without ${{…}}")
    else:
        job = slurm.job_id()
        name = given.get("name", f"slurm-{job}" if job else None)
        if name is None:
            raise ConfigError("resume=auto: requires name=…, which identifies the run")
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
                f"to train it further, give resume={folder} trainer.max_steps=…; for a new run, give another name=…"
            )
        return [f"resume={quote(str(folder))}", *rest]
    return rest


def _base(verb: str, run: str, settings: dict[str, Any], given: dict[str, str]) -> dict[str, str]:
    """Return overrides for the settings of a source that are not taken as whole groups."""
    if verb == "init_from":
        name = {"name": quote(f"{settings['name']}-${{hydra:runtime.choices.data}}")}
        return name | _attention(settings, given)
    seed_and_name = {"seed": str(settings["seed"]), "name": quote(settings["name"])}
    trainer = _trainer_settings(settings["trainer"])
    return {**seed_and_name, **_attention(settings, given), **trainer, **_unfinished_folder(run)}


def _attention(settings: dict[str, Any], given: dict[str, str]) -> dict[str, str]:
    """Return the override that makes the objective bidirectional if it follows the attention of its source."""
    schema: type[ObjectiveConfig] = KINDS["objective"].get(given.get("objective", "lm"), ObjectiveConfig)
    follows = schema.follows_attention and not _objective(settings).causal
    return {"objective.bidirectional": "true"} if follows else {}


def _objective(settings: dict[str, Any]) -> ObjectiveConfig:
    objective = from_plain("objective", settings["objective"])
    assert isinstance(objective, ObjectiveConfig)
    return objective


def _resolved(run: str, logs: str) -> str:
    """Return the folder that `latest` means now; another run could become the latest before training starts."""
    try:
        found = find_checkpoint(run, Path(logs), weights=False)
    except RunError as error:
        raise ConfigError(str(error)) from None
    return str(run_folder(found) or found) if run == "latest" else run


def _require_gptexp_run(run: str) -> None:
    """Refuse to resume weights of other programs, which have no optimizer state and no step."""
    folder = user_path(run, "resume")
    if huggingface.is_published(run) or (huggingface.is_folder(folder) and not has_checkpoint(folder)):
        raise ConfigError(f"resume={run}: is not a gptexp run and cannot be resumed; use init_from={run}")


def _require_trusted(run: str, settings: dict[str, Any], given: dict[str, str]) -> None:
    """Refuse an untrusted run whose settings name files, addresses or environment variables.

    Raises:
        ConfigError: the run is outside paths.logs, is not hydra.run.dir, and names some that the user has not replaced.
    """
    found, logs = find_checkpoint(run, weights=False), user_path(given.get("paths.logs", "logs"), "paths.logs")
    folder = run_folder(found) or found
    wanted = Path(given["hydra.run.dir"]) if "hydra.run.dir" in given else None
    if trust.is_in_logs(folder, logs) or (wanted is not None and wanted.resolve() == folder.resolve()):
        return
    external = {group: text for group, text in trust.external_references(settings).items() if group not in given}
    if external:
        raise ConfigError(
            f"resume={run}: is outside paths.logs={logs}, and its settings name {' and '.join(external.values())}; if "
            f"you trust them, add paths.logs={quote(str(folder.parent))}; otherwise give "
            f"{' '.join(f'{group}=…' for group in external)}"
        )


def _trainer_settings(trainer: dict[str, Any]) -> dict[str, str]:
    """Return overrides for single values, so that presets of the hardware such as trainer=cpu can still be chosen."""
    known = {f.name for f in fields(TrainerConfig)} - HARDWARE
    values = {name: trainer[name] for name in known & trainer.keys()}
    return {f"trainer.{name}": "null" if v is None else quote(str(v)) for name, v in values.items()}


def _unfinished_folder(run: str) -> dict[str, str]:
    folder = run_folder(find_checkpoint(run))
    return {} if folder is None or is_finished(folder) else {"hydra.run.dir": quote(str(folder))}


def check_against_source(config: Config) -> None:
    """Refuse a setting that must equal that of the source of `resume` or `init_from`, but differs.

    Raises:
        ConfigError: naming the setting, its value and that of the source.
    """
    run = config.resume or config.init_from
    if run is None:
        return
    verb = "resume" if config.resume else "init_from"
    free = FREE_ON_RESUME if config.resume else FREE_ON_INIT
    source, wanted = _source_settings(run), to_plain(config)
    groups = [group for group in SOURCE_GROUPS[verb] if group not in ("callbacks", "logger")]
    for group in (*groups, *(("trainer",) if config.resume else ())):
        stored, now = flatten(source[group]), flatten(wanted[group])
        for key in sorted({*stored, *now}):
            old, new, setting = stored.get(key), now.get(key), f"{group}.{key}"
            if old != new and of_one_corpus(setting) not in free:
                raise _fixed(f"{verb}={run}", setting, old, new)
    if config.resume and "callbacks" in source:
        # Callbacks that change the computation must stay; others can be added and removed.
        before, after = (computing_plugins(flatten(settings)) for settings in (source, wanted))
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key):
                raise _fixed(f"resume={run}", key, before.get(key), after.get(key))
    if config.init_from:
        _check_objective(config, _objective(source))
    if config.resume and source["seed"] != config.seed:
        raise _fixed(f"resume={run}", "seed", source["seed"], config.seed)
    if config.init_from and config.model.block_size > source["model"]["block_size"]:
        raise ConfigError(
            f"model.block_size={config.model.block_size}: init_from={run} has {source['model']['block_size']}, "
            "which can only become smaller"
        )


def _fixed(source: str, setting: str, old: object, new: object) -> ConfigError:
    """Return the error for a setting that differs from the source's."""
    was, now = ("null" if value is None else value for value in (old, new))
    return ConfigError(f"{setting}={now}: {source} has {was}, which can't change; leave it out")


def _check_objective(config: Config, source: ObjectiveConfig) -> None:
    """Refuse an objective whose attention mask or vocabulary differs from that of the source."""
    wanted, run = config.objective, config.init_from
    if wanted.masks and not source.masks:
        raise ConfigError(
            f"objective=mlm: init_from={run} was trained with objective={source.kind} and has no mask token; "
            "start from a run with objective=mlm, or from scratch"
        )
    if wanted.causal != source.causal:
        attention = "causal" if source.causal else "bidirectional"
        remedy = f"objective.bidirectional={str(source.causal is False).lower()}"
        remedy = f"use {remedy}" if wanted.follows_attention else "choose objective=mlm or classification"
        raise ConfigError(f"objective={wanted.kind}: init_from={run} was trained with {attention} attention; {remedy}")


def _source_settings(run: str) -> dict[str, Any]:
    try:
        return stored_settings(run)
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from None


def _store_source(group: str, plain: dict[str, Any]) -> None:
    """Register settings of a source as the option `source` of a group."""
    from_plain(group, plain)  # refuses unknown keys and interpolations of untrusted settings
    kind = f"/{plain['kind']}" if "kind" in plain else ""
    schema = f"/schema/{group}{kind}"
    values = {key: value for key, value in plain.items() if key != "kind"}
    node = {"defaults": [f"{schema}@_here_", "_self_"], **values}
    ConfigStore.instance().store(group=group, name="source", node=node)
