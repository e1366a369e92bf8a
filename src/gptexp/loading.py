"""Settings -> model, checkpoint -> model and tokenizer (no Lightning, so that `generate` starts quickly)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from gptexp import checkpoint as ckpt
from gptexp import flops
from gptexp.config import FinetuneConfig, ModelConfig, ObjectiveConfig
from gptexp.identity import completed
from gptexp.lora import adapt, merged
from gptexp.schemas import from_plain
from gptexp.seeds import seed_generator
from gptexp.tokenizers import Tokenizer, load_tokenizer
from gptexp.words import first_line

if TYPE_CHECKING:
    from gptexp.objectives import Objective

WIDE = 2**16  # up to so many channels a model is built without memory, to say which of its tensors differs
LONGEST = 2**20  # tokens of context that a checkpoint may name; without learned positions no tensor shows it
Make = Callable[[], nn.Module]  # draws its first weights from torch's generator


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


def seeded(make: Make, seed: int) -> nn.Module:
    """What `make` makes, from the draws that follow a seed; torch's own state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        seed_generator(torch.default_generator, seed)
        return make()


class Measured(NamedTuple):
    """How large a model is, how much work a token in training makes, and how many parameters train."""

    parameters: int
    flops_per_token: float
    trainable: int


def measure_model(make: Make, block_size: int, finetune: FinetuneConfig | None = None) -> Measured:
    """Count what `make` makes without allocating it.

    Raises:
        ValueError: adapters that the model can't have.
    """
    model = _meta(make, finetune or FinetuneConfig(), "model")
    return Measured(
        flops.count_parameters(model), flops.train_flops_per_token(model, block_size), flops.count_trainable(model)
    )


def _meta(make: Make, finetune: FinetuneConfig, source: object) -> nn.Module:
    """The model without memory for its weights, frozen and adapted as for training."""
    try:
        with torch.device("meta"):
            model = make()
            adapt(model, finetune)
    except (RuntimeError, OverflowError, TypeError) as error:
        if "overflow" not in str(error).lower():
            raise
        why = first_line(error)
        raise ValueError(f"{source}: is larger than any tensor can be ({why}); give smaller sizes") from None
    return model


def require_stored(config: ModelConfig, stored: dict[str, torch.Tensor], source: object) -> None:
    """Refuse sizes that the stored weights can't have: a stranger's numbers must not keep us busy.

    Raises:
        ValueError: more layers than tensors, far more channels than their longest side, or a context beyond LONGEST.
    """
    longest = max((max(tensor.shape, default=0) for tensor in stored.values()), default=0)
    for name, most in {"n_layer": len(stored), "n_embd": max(longest, WIDE), "block_size": LONGEST}.items():
        value = getattr(config, name, 1)
        if value > most:
            raise ValueError(
                f"{source}: model.{name}={value}: must be at most {most:,}; it has {len(stored):,} tensors, whose "
                f"longest side is {longest:,}"
            )


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
    model = _meta(partial(objective.make_model, config), finetune, source)
    stored = merged(checkpoint.model, checkpoint.config, source) if merge else checkpoint.model
    ckpt.adopt_weights(model, stored, source)
    return objective, model.eval()
