"""The choice of kernels: a value that each model holds, never a global."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

MAX_LENGTH = 2048  # longest T for which products are chosen for speed: backward keeps their (T, S) weights
# Above this T, products in a window are faster than torch's fused kernel without one: with a quarter of the tokens in
# the window, attention takes 0.7 of the time at T = 512 and 1024, and 1.1 at 256 (float32, AVX2, one thread).
MIN_LENGTH = 256


@dataclass(frozen=True)
class Kernels:
    """Which implementations of attention and of the loss a model uses.

    Args:
        products_for: dtypes for which attention on a CPU is a sequence of matrix products, instead of torch's
            fused kernel. With dropout on attention weights, a CPU always uses products; so it does with a window if
            the sequence is long.
        chunk_above: bytes of float32 logits above which the loss is computed in chunks.
        chunk_bytes: bytes of float32 logits in one chunk; None: `chunked_loss.CHUNK_BYTES` of the device.
    """

    products_for: tuple[torch.dtype, ...] = ()
    chunk_above: int = 2**26
    chunk_bytes: int | None = None

    def use_products(self, q: Tensor, dropout: float, reach: tuple[int, int] | None = None) -> bool:
        """Whether attention of the queries q (B, H, T, D) on as many keys is computed by products.

        reach: of a window; only products skip the keys outside it, which is faster for long sequences.
        """
        length = q.shape[2]
        skips = reach is not None and length > max(MIN_LENGTH, sum(reach) + 1)
        faster = skips or (length <= MAX_LENGTH and q.dtype in self.products_for)
        return q.device.type == "cpu" and (dropout > 0 or faster)

    def use_chunks(self, hidden: Tensor, vocab_size: int) -> bool:
        """Whether the loss of hidden states (..., C) is computed in chunks of their logits (..., V).

        Never in float16: the gradients are computed during the forward pass, where the gradient scaler does not
        see an overflow.
        """
        device = hidden.device.type
        float16 = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
        logits_bytes = 4 * hidden[..., 0].numel() * vocab_size
        return not float16 and hidden.dtype != torch.float16 and logits_bytes > self.chunk_above


class ModuleWithKernels(nn.Module):
    """A module that computes with a choice of kernels."""

    kernels: Kernels = Kernels()


def modules_with_kernels(model: nn.Module) -> list[ModuleWithKernels]:
    """The modules of the model that have a choice of kernels."""
    return [module for module in model.modules() if isinstance(module, ModuleWithKernels)]


def use_kernels(model: nn.Module, kernels: Kernels) -> None:
    """Set the kernels of every module of the model that has a choice."""
    for module in modules_with_kernels(model):
        module.kernels = kernels
