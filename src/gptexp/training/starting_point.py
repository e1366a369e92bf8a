"""The checkpoint that a run starts from (resume or init_from): what must agree with it, and what is taken over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gptexp.compose.inheritance import FREE_ON_INIT, FREE_ON_RESUME
from gptexp.config import Config
from gptexp.config.conversion import to_plain
from gptexp.config.fingerprint import completed, settings_that_matter
from gptexp.data.batches import scored
from gptexp.data.prepared import PreparedData
from gptexp.data.shards import TokenStore
from gptexp.machine.lightning import pl
from gptexp.models.build import require_stored
from gptexp.runs import checkpoint as ckpt
from gptexp.runs.code_hash import code_sha256
from gptexp.runs.finding import find_checkpoint
from gptexp.runs.history import History, segment
from gptexp.runs.layout import BEST, LAST, run_folder
from gptexp.runs.opening import load, open_checkpoint


def open_source(config: Config, folder: Path) -> ckpt.Checkpoint | None:
    """The checkpoint that the settings name; None where they name none.

    Raises:
        ValueError: it was trained with other settings, or it has no step left to take.
    """
    run = config.resume or config.init_from
    if run is None:
        return None
    path = find_checkpoint(run)
    source = open_checkpoint(path)
    require_stored(config.model, source.model, run)
    _require_same_settings(config, source, path)
    own = run_folder(path)
    here = own is not None and own.resolve() == folder.resolve()
    if not config.resume or (here and has_ended(source, config)):  # it was killed before it wrote its result
        return source
    if source.stopped:
        raise ValueError(
            f"resume={run}: was stopped by one of its callbacks after step {source.step}, as early stopping does; "
            f"to train its weights further, init_from={run}"
        )
    if source.step >= config.trainer.max_steps:
        raise ValueError(
            f"resume={run}: has taken all of its {source.step} steps; to train further, give trainer.max_steps"
        )
    return source


def _require_same_settings(config: Config, source: ckpt.Checkpoint, path: Path) -> None:
    """Refuse a checkpoint that was trained with other settings than those of its run's config.yaml, or of its job.

    Such a checkpoint was copied from another run, or config.yaml was edited.
    """
    now = to_plain(config)
    unknown = {"callbacks": now["callbacks"]} if source.plugins is None and "callbacks" not in source.config else {}
    plugins = {"callbacks": {"plugins": source.plugins}} if source.plugins is not None else unknown
    of_file, wanted = (
        settings_that_matter(completed(plain), also=["seed"]) for plain in ({**source.config, **plugins}, now)
    )
    free = FREE_ON_RESUME if config.resume else FREE_ON_INIT
    for key in sorted({*of_file, *wanted} - free):
        compared = bool(config.resume) or key.startswith("model.")
        if compared and of_file.get(key) != wanted.get(key):
            was, value = ("null" if found is None else found for found in (of_file.get(key), wanted.get(key)))
            raise ValueError(
                f"{key}={value}: {path} was trained with {was}, which can't change; "
                "it is another run's checkpoint, or config.yaml was edited"
            )


def require_same_data(config: Config, source: ckpt.Checkpoint | None, data: PreparedData) -> None:
    """Refuse to resume on another text. ValueError: both fingerprints, and the remedy."""
    if config.resume and source and source.data.get("fingerprint") != data.fingerprint:
        raise ValueError(
            f"resume={config.resume}: its text or tokens are not those found now "
            f"({source.data.get('fingerprint')} ≠ {data.fingerprint}); to train on another text, use init_from"
        )


def has_ended(source: ckpt.Checkpoint, config: Config) -> bool:
    """Whether no step is left to take, and the last validation has been made."""
    validated = any(source.metrics.get(name) is not None for name in ("sums", "nats"))
    return validated and (source.stopped or source.step == config.trainer.max_steps)


def last_sums(source: ckpt.Checkpoint, data: PreparedData) -> list[float]:
    """Return the sums of the last validation; an older checkpoint has the nats, and the rest follows from the text."""
    if "sums" in source.metrics:
        sums: list[float] = source.metrics["sums"]
        return sums
    assert isinstance(data.val, TokenStore)  # such a checkpoint is a language model
    return [source.metrics["nats"], *scored(data.val, data.tokenizer.token_bytes, data.tokenizer.eot)]


def best_file(source: ckpt.Checkpoint, config: Config) -> Path | None:
    """The file of the best step until now, where it stands beside the source's checkpoint."""
    assert config.resume is not None
    taken = find_checkpoint(config.resume)
    best = taken.with_name(BEST)
    if not best.is_file():
        return None
    step = (source.metrics.get("best") or {}).get("step")
    return best if taken.name == LAST or load(best).step == step else None  # else of a later step


def restore_callbacks(plugins: dict[str, pl.Callback], source: ckpt.Checkpoint) -> None:
    """Give callbacks the state that they had, so that the patience of early stopping goes on."""
    for name, part in (source.callbacks or {}).items():
        if part.get("state"):
            try:
                plugins[name].load_state_dict(part["state"])
            except (KeyError, TypeError, AttributeError, RuntimeError) as error:
                raise ValueError(f"callbacks.plugins.{name}: its stored state doesn't fit it ({error})") from None


def history_since(config: Config, source: ckpt.Checkpoint | None) -> History:
    """Which code and rates trained the source, and those of this process.

    A checkpoint without a history has the rates of its own settings, which can differ from ours in their length.
    """
    own = segment(config, source.step if source else 0, config.trainer.max_steps, code_sha256())
    if source is None or source.history is not None:
        return History(source.history or [] if source else [], own)
    trainer = source.config.get("trainer")
    steps = trainer.get("max_steps") if isinstance(trainer, dict) else None
    then = replace(config, trainer=replace(config.trainer, max_steps=steps if type(steps) is int else source.step))
    return History([segment(then, 0, source.step, None)], own)
