"""The logit lens: what the model would predict if it ended after each layer.

nostalgebraist 2020, "interpreting GPT: the logit lens" (LessWrong). The residual stream after each layer goes through
the final norm and the output layer. Early layers were not trained for this, so the lens can miss what they know
(Belrose et al. 2023, arXiv 2303.08112, section 2).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptexp.inspection.trace import Trace
from gptexp.models.losses import cross_entropy


@torch.no_grad()
def lens(trace: Trace, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the likeliest next token and the nats of the targets (T - 1,), after the embedding and after each layer.

    Both have the shape (L + 1, T - 1). The last row is the model.
    """
    likeliest, nats = [], []
    for stream in (trace.embedded, *(layer.after for layer in trace.layers)):
        logits = trace.model.lm_head(trace.model.transformer.finish(stream[:, :-1]))  # (1, T - 1, V)
        likeliest.append(logits[0].argmax(-1))
        nats.append(cross_entropy(logits, targets[None], "none"))
    return torch.stack(likeliest), torch.stack(nats)
