"""torch's optimizers without the import of torch._dynamo.

torch decorates methods of its optimizers for code that is compiled. The decorators import torch._dynamo, with sympy and
a thousand modules in all, at the first call. gptexp compiles models only, so it calls the methods inside.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap
from typing import Any

import torch

_Closure = Callable[[], float] | None


class EagerOptimizer(torch.optim.Optimizer):
    """A base class, named before the class of torch, whose methods are not compiled."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        unwrap(torch.optim.Optimizer.add_param_group)(self, param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        unwrap(torch.optim.Optimizer.zero_grad)(self, set_to_none)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = unwrap(torch.optim.Optimizer.state_dict)(self)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        unwrap(torch.optim.Optimizer.load_state_dict)(self, state_dict)


class EagerAdamW(EagerOptimizer, torch.optim.AdamW):
    """AdamW with the same settings, state and steps as torch's; not differentiable."""

    @torch.no_grad()
    def step(self, closure: _Closure = None) -> float | None:  # type: ignore[override]
        taken: float | None = unwrap(torch.optim.AdamW.step)(self, closure)
        return taken
