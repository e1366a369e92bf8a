"""Direct logit attribution: what each part of the model adds to the logit of the true token.

The residual stream is the sum of the embedding and of what every attention and feed-forward layer writes to it
(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"). After it come only the final norm, which is
linear while its scale is kept as it is, and the output layer. So the logit is a sum over the parts, too. Effects on
later layers are not included.

Softmax does not change if a number is added to all logits, so the effect is on the logit above the mean of all
logits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gptexp.inspection.trace import Trace
from gptexp.models.kernels.norm import RMSNorm

EMBEDDING, BIAS = "embedding", "bias of the final norm"


def direct_effects(trace: Trace) -> dict[str, Tensor]:
    """Return the effect of each part on the logit of each token but the first, (T - 1,); {} if there is no such sum.

    There is none with post-norm, which normalizes the stream after every layer, and without residual connections.
    """
    config, transformer = trace.model.config, trace.model.transformer
    if not config.residual or not transformer.h[0].pre_norm:
        return {}
    stream = trace.layers[-1].after[:, :-1].detach().requires_grad_()
    logits = trace.model.lm_head(_with_fixed_scale(transformer.ln_f, stream) / config.width_ratio)[0]  # (T - 1, V)
    above = logits.gather(-1, trace.tokens[1:, None])[:, 0] - logits.mean(-1)  # (T - 1,)
    (slope,) = torch.autograd.grad(above.sum(), stream)  # (1, T - 1, C): `above` is a linear function of the stream
    effects = {name: (part[:, :-1] * slope).sum(-1)[0] for name, part in parts(trace).items()}
    if getattr(transformer.ln_f, "bias", None) is not None:
        effects[BIAS] = above.detach() - (stream.detach() * slope).sum(-1)[0]
    return effects


def parts(trace: Trace) -> dict[str, Tensor]:
    """Return the parts (1, T, C) whose sum is the residual stream after the last layer, by name."""
    found = {EMBEDDING: trace.embedded}
    for index, layer in enumerate(trace.layers):
        found[f"attention {index}"] = layer.attention
        if layer.feed_forward is not None:
            found[f"feed-forward {index}"] = layer.feed_forward
    return found


def _with_fixed_scale(norm: nn.Module, x: Tensor) -> Tensor:
    """The output of a norm, whose gradient treats the scale as a constant."""
    if isinstance(norm, nn.LayerNorm):
        x = x - x.mean(-1, keepdim=True)
    elif not isinstance(norm, RMSNorm):
        return x
    assert norm.eps is not None
    scale = (x.detach().square().mean(-1, keepdim=True) + norm.eps).rsqrt()
    scaled = x * scale * norm.weight
    bias = getattr(norm, "bias", None)
    return scaled if bias is None else scaled + bias
