"""Settings -> model, checkpoint -> model and tokenizer (no Lightning, so that `generate` starts quickly)."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import torch
from torch import nn

from gptexp import checkpoint as ckpt
from gptexp import flops
from gptexp.config import FinetuneConfig, ModelConfig
from gptexp.identity import completed
from gptexp.lora import adapt, merged
from gptexp.schemas import from_plain
from gptexp.tokenizers import Tokenizer, load_tokenizer


def model_class(config: ModelConfig) -> type[nn.Module]:
    """The class that `model.kind` means: gptexp.models.<kind>.Model."""
    return import_module(f"gptexp.models.{config.kind}").Model


def build_model(config: ModelConfig, vocab_size: int, *, seed: int | None = None) -> nn.Module:
    """The model; its first weights follow from the seed alone, or stay unset where None is given."""
    if seed is None:
        return _make(config, vocab_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _make(config, vocab_size)


def _make(config: ModelConfig, vocab_size: int) -> nn.Module:
    """The model, with its settings at `model.config` whether its author thought of that or not."""
    model = model_class(config)(config, vocab_size)
    model.config = config  # type: ignore[assignment]
    return model


class Measured(NamedTuple):
    """How large a model is, how much work a token in training makes, and how many parameters train."""

    parameters: int
    flops_per_token: float
    trainable: int


def measure_model(config: ModelConfig, vocab_size: int, finetune: FinetuneConfig | None = None) -> Measured:
    """Count without allocating the model.

    Raises:
        ValueError: adapters that the model can't have.
    """
    model = _meta(config, vocab_size, finetune or FinetuneConfig())
    return Measured(
        flops.count_parameters(model),
        flops.train_flops_per_token(model, config.block_size),
        flops.count_trainable(model),
    )


def _meta(config: ModelConfig, vocab_size: int, finetune: FinetuneConfig) -> nn.Module:
    """The model without memory for its weights, frozen and adapted as for training."""
    with torch.device("meta"):
        model = _make(config, vocab_size)
        adapt(model, finetune)
    return model


def load_model(checkpoint: ckpt.Checkpoint, source: object, *, merge: bool = True) -> tuple[nn.Module, Tokenizer]:
    """The model and tokenizer of a checkpoint: all that generating takes.

    merge: add adapters to their weights, so that the model is a plain one; False leaves it as it was trained.

    Raises:
        ValueError: its settings, tokenizer or weights don't fit together.
    """
    config = from_plain("model", checkpoint.config.get("model"))
    tokenizer = load_tokenizer(checkpoint.tokenizer)
    if getattr(config, "n_layer", 1) > len(checkpoint.model):  # a stranger's number must not keep us busy
        raise ValueError(
            f"{source}: model.n_layer={config.n_layer}, but only {len(checkpoint.model)} tensors are stored"
        )
    finetune = FinetuneConfig() if merge else from_plain("finetune", completed(checkpoint.config)["finetune"])
    model = _meta(config, tokenizer.vocab_size, finetune)  # nothing is allocated for what a stranger's settings ask
    stored = merged(checkpoint.model, checkpoint.config, source) if merge else checkpoint.model
    ckpt.adopt_weights(model, stored, source)
    return model.eval(), tokenizer
