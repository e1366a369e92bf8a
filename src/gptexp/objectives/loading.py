"""Settings -> model, checkpoint -> model and tokenizer (no Lightning, so that `generate` starts quickly)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from gptexp.config import FinetuneConfig, ObjectiveConfig
from gptexp.config.conversion import from_plain
from gptexp.config.fingerprint import completed
from gptexp.models.build import build_on_meta, require_stored
from gptexp.models.lora import merged
from gptexp.models.weights import adopt_weights
from gptexp.runs import checkpoint as ckpt
from gptexp.tokenizers import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from gptexp.objectives import Objective


def load_model(checkpoint: ckpt.Checkpoint, source: object) -> tuple[nn.Module, Tokenizer]:
    """The language model and tokenizer of a checkpoint: all that generating takes.

    Raises:
        ValueError: its settings, tokenizer or weights don't fit together; it was trained for something else.
    """
    from gptexp.objectives import implementation

    kind = objective_of(checkpoint).kind
    if not implementation(kind).writes:
        raise ValueError(f"{source}: was trained with objective={kind}: {implementation(kind).gives}")
    objective, model = load_trained(checkpoint, source)
    return model, objective.tokenizer


def objective_of(checkpoint: ckpt.Checkpoint) -> ObjectiveConfig:
    """The settings objective.* of a checkpoint; those of before there was a choice have none."""
    return from_plain("objective", completed(checkpoint.config)["objective"])


def load_trained(checkpoint: ckpt.Checkpoint, source: object, *, merge: bool = True) -> tuple[Objective, nn.Module]:
    """The objective and the model of a checkpoint, whatever it was trained for.

    merge: add adapters to their weights, so that the model is a plain one; False leaves it as it was trained.

    Raises:
        ValueError: its settings, tokenizer or weights don't fit together.
    """
    from gptexp.objectives import implementation

    config, wanted = from_plain("model", checkpoint.config.get("model")), objective_of(checkpoint)
    try:
        objective = implementation(wanted.kind)(wanted, load_tokenizer(checkpoint.tokenizer), checkpoint.data)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    require_stored(config, checkpoint.model, source)
    finetune = FinetuneConfig() if merge else from_plain("finetune", completed(checkpoint.config)["finetune"])
    # Nothing is allocated for a stranger's numbers.
    model = build_on_meta(partial(objective.make_model, config), finetune, source)
    stored = merged(checkpoint.model, checkpoint.config, source) if merge else checkpoint.model
    adopt_weights(model, stored, source)
    return objective, model.eval()
