"""Build a model from its settings, or measure it without allocating its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gptexp.config.finetune import FinetuneConfig
from gptexp.config.kinds import implementation
from gptexp.config.model import ModelConfig
from gptexp.models import flops
from gptexp.models.lora import adapt
from gptexp.util.seeds import seed_generator
from gptexp.util.text import first_line

MAX_N_EMBD = 2**16  # n_embd of a checkpoint that is always tried on the meta device, to name the tensor that differs
DRAWS = ("normal_", "trunc_normal_", "uniform_")  # methods of tensors and functions of torch.nn.init
MAX_BLOCK_SIZE = 2**20  # of a checkpoint: without learned positions, no tensor has a side of this length

Make = Callable[[], nn.Module]  # builds a model; its initial weights are torch's next random numbers


def plain_model(config: ModelConfig, vocab_size: int, **options: bool) -> nn.Module:
    """A model with nothing on top; `model.config` is its settings, whether or not its class sets them."""
    model: nn.Module = implementation("model", config.kind)(config, vocab_size, **options)
    cast(Any, model).config = config
    return model


def build_model(config: ModelConfig, vocab_size: int, *, seed: int | None = None) -> nn.Module:
    """A language model. Its initial weights follow from the seed, or with None from torch's global generator."""
    make = partial(plain_model, config, vocab_size)
    return make() if seed is None else seeded(make, seed)


def seeded(make: Make, seed: int) -> nn.Module:
    """The model that `make` builds with random numbers of this seed; torch's global generator is left unchanged."""
    with torch.random.fork_rng(devices=[]):
        seed_generator(torch.default_generator, seed)
        return make()


class Measured(NamedTuple):
    """The size of a model.

    Args:
        parameters: how many there are; a tied matrix counts once.
        flops_per_token: FLOPs of a forward and a backward pass, per token.
        trainable: how many parameters are trained.
    """

    parameters: int
    flops_per_token: float
    trainable: int


def measure_model(make: Make, block_size: int, finetune: FinetuneConfig | None = None) -> Measured:
    """Measure the model that `make` builds, without allocating it.

    Raises:
        ValueError: adapters that the model does not support, or a size beyond torch's limits.
    """
    model = build_on_meta(make, finetune or FinetuneConfig(), "model")
    return Measured(
        flops.count_parameters(model), flops.train_flops_per_token(model, block_size), flops.count_trainable(model)
    )


def build_on_meta(make: Make, finetune: FinetuneConfig, source: object) -> nn.Module:
    """The model that `make` builds, frozen and adapted as for training, on the meta device: without weights.

    Raises:
        ValueError: adapters that the model does not support, or a size beyond torch's limits; source: what it names.
    """
    try:
        with torch.device("meta"), _NoDraws():
            model = make()
            adapt(model, finetune)
    except (RuntimeError, OverflowError, TypeError) as error:
        if "overflow" not in str(error).lower():
            raise
        why = first_line(error)
        raise ValueError(f"{source}: is larger than any tensor can be ({why}); give smaller sizes") from None
    return model


class _NoDraws(TorchFunctionMode):
    """Leaves out random draws into tensors without memory, for which torch imports torch._dynamo (seconds)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensor = args[0] if args else kwargs.get("tensor")
        if getattr(func, "__name__", "") in DRAWS and isinstance(tensor, Tensor) and tensor.device.type == "meta":
            return tensor
        return func(*args, **kwargs)


def require_stored(config: ModelConfig, stored: Mapping[str, Tensor], source: object) -> None:
    """Refuse settings that the stored weights contradict, before a model of that size is built.

    The settings of an untrusted checkpoint must not consume time or memory beyond what its weights need.

    Raises:
        ValueError: more layers than tensors, an n_embd far above their longest side, or a block_size above
            MAX_BLOCK_SIZE.
    """
    longest = max((max(tensor.shape, default=0) for tensor in stored.values()), default=0)
    limits = {"n_layer": len(stored), "n_embd": max(longest, MAX_N_EMBD), "block_size": MAX_BLOCK_SIZE}
    for name, limit in limits.items():
        value = getattr(config, name, 1)
        if value > limit:
            raise ValueError(
                f"{source}: model.{name}={value}: must be at most {limit:,}; it has {len(stored):,} tensors, whose "
                f"longest side is {longest:,}"
            )
