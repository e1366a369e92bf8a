"""From model settings to a model, and its size without memory for its weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from gptexp.config import FinetuneConfig, ModelConfig
from gptexp.models import flops
from gptexp.models.lora import adapt
from gptexp.util.seeds import seed_generator
from gptexp.util.text import first_line

if TYPE_CHECKING:
    pass


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
