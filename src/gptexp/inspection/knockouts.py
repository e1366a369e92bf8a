"""Head knock-outs: the loss of the text without each attention head.

The output of a head is set to zero before the projection that writes it to the residual stream (zero ablation, as in
Michel et al. 2019, arXiv 1905.10650). Layers before the head don't change, so only its layer and those after it are
computed, for all heads of a layer at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gptexp.inspection.trace import Trace
from gptexp.models.flops import train_flops_per_token

MOST_FLOPS = 2e13  # minutes on two cores; GPT-2 small takes a third of it at 256 tokens


@torch.no_grad()
def losses_without_heads(trace: Trace, targets: Tensor) -> Tensor | None:
    """Return the mean nats of the targets (T - 1,) without each head, (L, H); None if it takes above MOST_FLOPS."""
    if _flops(trace) > MOST_FLOPS:
        return None
    return torch.stack([_without_each(trace, layer, targets) for layer in range(len(trace.layers))])


def _flops(trace: Trace) -> float:
    """Return about how many FLOPs all knock-outs take: each computes half of the layers on average, and the logits."""
    length, heads = len(trace.tokens), len(trace.layers) * trace.model.config.n_head
    logits = 2 * trace.model.lm_head.weight.numel()
    forward = train_flops_per_token(trace.model, length) / 3
    return heads * length * (forward + logits) / 2


def _without_each(trace: Trace, first: int, targets: Tensor) -> Tensor:
    """Return the mean nats without each head of one layer, (H,)."""
    model, attention = trace.model, trace.layers[first].block.attn
    eye = torch.eye(attention.n_head, device=targets.device)
    kept = 1 - eye.repeat_interleave(attention.head_dim, dim=1)[:, None]  # (H, 1, C)

    def drop_one_head(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0] * kept,)  # row h of the batch loses head h

    x = trace.layers[first].before.expand(attention.n_head, -1, -1)  # (H, T, C)
    with attention.c_proj.register_forward_pre_hook(drop_one_head):
        x = trace.layers[first].again(x)
    for later in trace.layers[first + 1 :]:
        x = later.again(x)
    hidden = model.transformer.finish(x)[:, :-1]
    return torch.stack([model.loss(row[None], targets[None]) for row in hidden])
