"""Settings -> model, checkpoint -> model and tokenizer (no Lightning, so that `generate` starts quickly)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

import torch
from torch import nn

from gptexp import checkpoint as ckpt
from gptexp import flops
from gptexp.config import UNSAID, ModelConfig, ObjectiveConfig
from gptexp.schemas import from_plain
from gptexp.tokenizers import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from gptexp.objectives import Objective


def model_class(config: ModelConfig) -> type[nn.Module]:
    """The class that `model.kind` means: gptexp.models.<kind>.Model."""
    return import_module(f"gptexp.models.{config.kind}").Model


def plain_model(config: ModelConfig, vocab_size: int, **how: bool) -> nn.Module:
    """The model, with its settings at `model.config` whether its author thought of that or not."""
    model = model_class(config)(config, vocab_size, **how)
    model.config = config  # type: ignore[assignment]
    return model


def build_model(config: ModelConfig, vocab_size: int, *, seed: int | None = None) -> nn.Module:
    """A language model; its first weights follow from the seed alone, or stay unset where None is given."""
    make = partial(plain_model, config, vocab_size)
    return make() if seed is None else seeded(make, seed)


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """What `make` makes, from the draws that follow a seed; torch's own state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def measure_model(make: Callable[[], nn.Module], block_size: int) -> tuple[int, float]:
    """Parameters and training FLOPs a token of what `make` makes, without allocating it."""
    with torch.device("meta"):
        model = make()
    return flops.count_parameters(model), flops.train_flops_per_token(model, block_size)


def load_model(checkpoint: ckpt.Checkpoint, source: object) -> tuple[nn.Module, Tokenizer]:
    """The language model and tokenizer of a checkpoint: all that generating takes.

    Raises:
        ValueError: its settings, tokenizer or weights don't fit together; it was trained for something else.
    """
    from gptexp.objectives import implementation

    kind = objective_of(checkpoint).kind
    if not implementation(kind).writes:
        raise ValueError(f"{source}: was trained with objective={kind}: {NO_LANGUAGE_MODEL[kind]}")
    objective, model = load_trained(checkpoint, source)
    return model, objective.tokenizer


NO_LANGUAGE_MODEL = {
    "mlm": "it finds hidden tokens from both sides, and gives no next token to generate and no likelihood to score",
    "classification": "it gives a label (python -m gptexp.predict), and no text",
}


def objective_of(checkpoint: ckpt.Checkpoint) -> ObjectiveConfig:
    """The settings objective.* of a checkpoint; those of before there was a choice have none."""
    return from_plain("objective", checkpoint.config.get("objective", UNSAID))


def load_trained(checkpoint: ckpt.Checkpoint, source: object) -> tuple[Objective, nn.Module]:
    """The objective and the model of a checkpoint, whatever it was trained for.

    Raises:
        ValueError: its settings, tokenizer or weights don't fit together.
    """
    from gptexp.objectives import implementation

    config, wanted = from_plain("model", checkpoint.config.get("model")), objective_of(checkpoint)
    try:
        objective = implementation(wanted.kind)(wanted, load_tokenizer(checkpoint.tokenizer), checkpoint.data)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    if getattr(config, "n_layer", 1) > len(checkpoint.model):  # a stranger's number must not keep us busy
        raise ValueError(
            f"{source}: model.n_layer={config.n_layer}, but only {len(checkpoint.model)} tensors are stored"
        )
    with torch.device("meta"):  # nothing is allocated for what a stranger's settings ask
        model = objective.make_model(config)
    ckpt.adopt_weights(model, checkpoint.model, source)
    return objective, model.eval()
