"""The checkpoint that a run starts from (resume or init_from): which settings must agree, and what is restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gptexp.compose.inheritance import FREE_ON_INIT, FREE_ON_RESUME
from gptexp.compose.mixtures import of_one_corpus
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
from gptexp.training.length import Length
from gptexp.training.module import LitGPT
from gptexp.training.optimizer_state import load_named_optimizer_state


def open_source(config: Config) -> ckpt.Checkpoint | None:
    """Open the checkpoint that resume or init_from names; None without either.

    Raises:
        ValueError: it was trained with other settings.
    """
    run = config.resume or config.init_from
    if run is None:
        return None
    path = find_checkpoint(run)
    source = open_checkpoint(path)
    require_stored(config.model, source.model, run)
    _require_same_settings(config, source, path)
    return source


def require_steps_left(source: ckpt.Checkpoint, run: str, folder: Path, length: Length) -> None:
    """Refuse to resume a run that has no steps left.

    Raises:
        ValueError: a callback stopped it, or it is already complete.
    """
    source_folder = run_folder(find_checkpoint(run))
    in_place = source_folder is not None and source_folder.resolve() == folder.resolve()
    if in_place and has_ended(source, length.max_steps):  # killed before it wrote result.json
        return
    if source.stopped:
        raise ValueError(
            f"resume={run}: a callback, such as early stopping, stopped the run after step {source.step}; "
            f"use init_from={run} to train its weights further"
        )
    if source.step >= length.max_steps:
        remedy = f"raise {length.setting} to continue"
        if length.exhausts:
            remedy = f"data.exhausted=stop ends it before data.parts.{length.exhausts} would repeat"
        raise ValueError(f"resume={run}: already complete ({source.step} steps); {remedy}")


def _require_same_settings(config: Config, source: ckpt.Checkpoint, path: Path) -> None:
    """Refuse a checkpoint whose settings differ from the run's config.yaml or from the settings of its job.

    Such a checkpoint was copied from another run, or config.yaml was edited.
    """
    now = to_plain(config)
    unknown = {"callbacks": now["callbacks"]} if source.plugins is None and "callbacks" not in source.config else {}
    plugins = {"callbacks": {"plugins": source.plugins}} if source.plugins is not None else unknown
    of_file, wanted = (
        settings_that_matter(completed(plain), also=["seed"]) for plain in ({**source.config, **plugins}, now)
    )
    free = FREE_ON_RESUME if config.resume else FREE_ON_INIT
    for key in sorted(key for key in {*of_file, *wanted} if of_one_corpus(key) not in free):
        compared = bool(config.resume) or key.startswith("model.")
        if compared and of_file.get(key) != wanted.get(key):
            was, value = ("null" if found is None else found for found in (of_file.get(key), wanted.get(key)))
            raise ValueError(
                f"{key}={value}: {path} was trained with {was}, which can't change; "
                "it is a checkpoint of another run, or config.yaml was edited"
            )


def require_same_data(config: Config, source: ckpt.Checkpoint | None, data: PreparedData) -> None:
    """Refuse to resume on another text.

    Raises:
        ValueError: the fingerprints differ.
    """
    if config.resume and source and source.data.get("fingerprint") != data.fingerprint:
        raise ValueError(
            f"resume={config.resume}: the text or its tokens have changed "
            f"({source.data.get('fingerprint')} ≠ {data.fingerprint}); use init_from to train on another text"
        )


def has_ended(source: ckpt.Checkpoint, max_steps: int) -> bool:
    """Return whether the last step and the last validation are done."""
    validated = any(source.metrics.get(name) is not None for name in ("sums", "nats"))
    return validated and (source.stopped or source.step == max_steps)


def last_sums(source: ckpt.Checkpoint, data: PreparedData) -> list[float]:
    """Return the sums of the last validation; an older checkpoint has the nats, and the rest follows from the text."""
    if "sums" in source.metrics:
        sums: list[float] = source.metrics["sums"]
        return sums
    assert isinstance(data.val, TokenStore)  # such a checkpoint is a language model
    return [source.metrics["nats"], *scored(data.val, data.tokenizer.token_bytes, data.tokenizer.eot)]


def best_file(source: ckpt.Checkpoint, config: Config) -> Path | None:
    """Return best.ckpt beside the source's checkpoint; None if it is missing or of a later step."""
    assert config.resume is not None
    resumed = find_checkpoint(config.resume)
    best = resumed.with_name(BEST)
    if not best.is_file():
        return None
    step = (source.metrics.get("best") or {}).get("step")
    return best if resumed.name == LAST or load(best).step == step else None


class RestoreOptimizer(pl.Callback):
    """Loads the stored optimizer state when Lightning has created the optimizer."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def on_fit_start(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitGPT)
        load_named_optimizer_state(lit.model, trainer.optimizers[0], self.state)
        self.state = {}


def restore_callbacks(plugins: dict[str, pl.Callback], source: ckpt.Checkpoint) -> None:
    """Restore the state of callbacks, such as the patience of early stopping."""
    for name, part in (source.callbacks or {}).items():
        if part.get("state"):
            try:
                plugins[name].load_state_dict(part["state"])
            except (KeyError, TypeError, AttributeError, RuntimeError) as error:
                raise ValueError(f"callbacks.plugins.{name}: cannot load its stored state ({error})") from None


def history_since(config: Config, max_steps: int, source: ckpt.Checkpoint | None) -> History:
    """Return the code and the learning rates of the source's steps, followed by those of this process.

    For a checkpoint without a history the rates follow from its settings, whose max_steps may differ.
    """
    current = segment(config, max_steps, source.step if source else 0, max_steps, code_sha256(config))
    if source is None or source.history is not None:
        return History(source.history or [] if source else [], current)
    trainer = source.config.get("trainer")
    steps = trainer.get("max_steps") if isinstance(trainer, dict) else None
    former = steps if type(steps) is int else source.step
    return History([segment(config, former, 0, source.step, None)], current)
