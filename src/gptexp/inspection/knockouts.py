"""Head knock-outs: the loss of the text without each attention head.

The output of a head is set to zero before the projection that writes it to the residual stream (zero ablation, as in
Michel et al. 2019, arXiv 1905.10650). Layers before the head don't change, so only its layer and those after it are
computed, for all heads of a layer at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gptexp.inspection.trace import Trace, trace
from gptexp.models.flops import train_flops_per_token
from gptexp.models.gpt import GPT

MOST_FLOPS = 2.5e12  # half a minute on two cores; GPT-2 small takes as much at about 100 tokens


@torch.no_grad()
def knock_outs(traced: Trace, targets: Tensor) -> tuple[Tensor, int]:
    """Return by how many nats the mean loss of the targets (T - 1,) is larger without each head, and the tokens used.

    The first tensor is (L, H); it is nan if no target is scored. If all tokens take more than MOST_FLOPS, only the
    beginning of the text is used.
    """
    used = max(2, min(len(traced.tokens), int(MOST_FLOPS / _flops_per_token(traced))))
    if used < len(traced.tokens):
        traced, targets = trace(traced.model, traced.tokens[:used]), targets[: used - 1]
    (whole,) = _losses(traced.model, traced.layers[-1].after, targets)
    return torch.stack([_without_each(traced, layer, targets) for layer in range(len(traced.layers))]) - whole, used


def _flops_per_token(traced: Trace) -> float:
    """Return about how many FLOPs all knock-outs take: each computes half of the layers on average, and the logits."""
    heads, logits = len(traced.layers) * traced.model.config.n_head, 2 * traced.model.lm_head.weight.numel()
    forward = train_flops_per_token(traced.model, len(traced.tokens)) / 3
    return heads * (forward + logits) / 2


def _losses(model: GPT, stream: Tensor, targets: Tensor) -> Tensor:
    """Return the mean nats of the targets (T - 1,) for each last residual stream, (B, T, C), as (B,)."""
    return torch.stack([model.loss(row[None], targets[None]) for row in model.transformer.finish(stream)[:, :-1]])


def _without_each(traced: Trace, first: int, targets: Tensor) -> Tensor:
    """Return the mean nats without each head of one layer, (H,)."""
    model, attention = traced.model, traced.layers[first].block.attn
    eye = torch.eye(attention.n_head, device=targets.device)
    kept = 1 - eye.repeat_interleave(attention.head_dim, dim=1)[:, None]  # (H, 1, C)

    def drop_one_head(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0] * kept,)  # row h of the batch loses head h

    x = traced.layers[first].before.expand(attention.n_head, -1, -1)  # (H, T, C)
    with attention.c_proj.register_forward_pre_hook(drop_one_head):
        x = traced.layers[first].again(x)
    for later in traced.layers[first + 1 :]:
        x = later.again(x)
    return _losses(model, x, targets)
