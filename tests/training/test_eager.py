"""The optimizers without torch._dynamo take the steps of torch's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gptexp.training.eager import EagerAdamW


def trained(kind: type[torch.optim.AdamW], **settings: Any) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """Return weights and state after three steps, with a reload of the state after the second."""
    torch.manual_seed(3)
    model, x = nn.Linear(5, 4), torch.randn(7, 5)
    optimizer = kind(model.parameters(), lr=0.02, weight_decay=0.1, **settings)
    optimizer.add_param_group({"params": [extra := nn.Parameter(torch.ones(3))], "lr": 0.3})

    def closure() -> Any:
        optimizer.zero_grad()
        loss = model(x).square().mean() + extra.square().sum()
        loss.backward()
        return loss

    losses: list[Any] = [optimizer.step(closure) for _ in range(2)]
    state = optimizer.state_dict()
    groups: list[dict[str, Any]] = [{"params": model.parameters()}, {"params": [extra]}]
    optimizer = kind(groups)
    optimizer.load_state_dict(state)
    losses.append(optimizer.step(closure))
    assert all(isinstance(loss, torch.Tensor) and loss.requires_grad for loss in losses)
    return [*model.parameters(), extra], optimizer.state_dict()


def test_adamw_equals_torchs_bitwise() -> None:
    for settings in ({"fused": True}, {}):
        ours, our_state = trained(EagerAdamW, **settings)
        theirs, their_state = trained(torch.optim.AdamW, **settings)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert our_state["param_groups"] == their_state["param_groups"]
        assert all(
            torch.equal(our_state["state"][i][key], value)
            for i in range(3)
            for key, value in their_state["state"][i].items()
        )
