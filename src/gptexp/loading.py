"""Settings -> model, checkpoint -> model and tokenizer (no Lightning, so that `generate` starts quickly)."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import nn

from gptexp import checkpoint as ckpt
from gptexp import flops
from gptexp.config import ModelConfig
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


def measure_model(config: ModelConfig, vocab_size: int) -> tuple[int, float]:
    """Parameters and training FLOPs a token, without allocating the model."""
    with torch.device("meta"):
        model = _make(config, vocab_size)
    return flops.count_parameters(model), flops.train_flops_per_token(model, config.block_size)


def load_model(checkpoint: ckpt.Checkpoint, source: object) -> tuple[nn.Module, Tokenizer]:
    """The model and tokenizer of a checkpoint: all that generating takes.

    Raises:
        ValueError: its settings, tokenizer or weights don't fit together.
    """
    config = from_plain("model", checkpoint.config.get("model"))
    tokenizer = load_tokenizer(checkpoint.tokenizer)
    if getattr(config, "n_layer", 1) > len(checkpoint.model):  # a stranger's number must not keep us busy
        raise ValueError(
            f"{source}: model.n_layer={config.n_layer}, but only {len(checkpoint.model)} tensors are stored"
        )
    with torch.device("meta"):  # nothing is allocated for what a stranger's settings ask
        model = _make(config, tokenizer.vocab_size)
    ckpt.adopt_weights(model, checkpoint.model, source)
    return model.eval(), tokenizer
