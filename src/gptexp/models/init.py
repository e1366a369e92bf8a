"""Initial weights."""

from __future__ import annotations

import math

from torch import nn

STD = 0.02  # GPT-2's, for every matrix


def init_gpt2(model: nn.Module, n_layer: int, *, zero: bool = False, width_ratio: float = 1.0) -> None:
    """Set every parameter as GPT-2 does (Radford et al. 2019, section 2.3); draws from torch's global generator.

    Matrices are normal with standard deviation 0.02. Those that write to the residual stream (`c_proj`, two in each
    layer) have 0.02 / sqrt(2 * n_layer), so that the variance of the stream does not grow with depth. Biases are 0,
    gains are 1. A tied matrix is drawn once.

    Args:
        width_ratio: with mup, n_embd / base_width; hidden matrices are smaller by its square root, so that outputs keep
            their size (arXiv 2203.03466, table 8).
        zero: start the matrices that write to the stream, and an untied lm_head, at 0, so that each block starts as
            the identity (Fixup, arXiv 1901.09321; the head of muP, arXiv 2203.03466).
    """
    layers = [layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and name != "lm_head"]
    hidden = {id(layer.weight) for layer in layers}
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            writes_to_stream = name.endswith("c_proj.weight")
            std = STD / math.sqrt(2 * n_layer) if writes_to_stream else STD
            if id(parameter) in hidden:
                std *= width_ratio**-0.5
            if zero and (writes_to_stream or name == "lm_head.weight"):
                std = 0.0
            nn.init.normal_(parameter, std=std)
        else:
            nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
