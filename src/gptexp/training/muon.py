"""torch.optim.Muon, many matrices at once.

torch's own step goes matrix by matrix in bfloat16, which is slow on a CPU, and on sharded matrices rounds
sums of parts. Here matrices of one shape go through the Newton-Schulz iteration together, sharded ones are
gathered first, so that every layout computes the same, and the iteration's precision suits the device.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from gptexp.machine.hardware import cpu_has_bf16


class BatchedMuon(torch.optim.Muon):
    """Muon (Jordan et al. 2024) with the update sizes of arXiv 2502.16982; settings and state are torch's.

    found_inf: a flag on the device, as fused AdamW reads it; where it isn't 0 the weights stay.
    """

    found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for alike in by_shape.values():
                self._update(alike, group)
        return loss

    def _update(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        """One step of all matrices of a shape (A, B)."""
        stacked = torch.stack([_whole(self._accelerated(matrix, group)) for matrix in matrices])  # (N, A, B)
        directions = orthogonalised(stacked, group["ns_coefficients"], group["ns_steps"], group["eps"])
        size = 0.2 * math.sqrt(max(matrices[0].shape))  # the root mean square of AdamW's updates, section 2.2
        flag = self.found_inf
        for matrix, direction in zip(matrices, directions, strict=True):
            own = _own(matrix)
            before = own if flag is None else own.clone()
            own.mul_(1 - group["lr"] * group["weight_decay"])
            own.add_(_own(_placed_like(direction, matrix)), alpha=-size * group["lr"])
            if flag is not None:
                own.copy_(torch.where(flag > 0, before, own))

    def _accelerated(self, matrix: Tensor, group: dict[str, Any]) -> Tensor:
        """The gradient with momentum, Nesterov's or plain."""
        state, gradient = self.state[matrix], matrix.grad
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"]
        average.lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(average, group["momentum"]) if group["nesterov"] else average


def orthogonalised(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Each matrix (N, A, B) with its singular values brought near 1: Newton-Schulz iteration of a quintic.

    coefficients: a, b, c of a·X + b·(XXᵀ)X + c·(XXᵀ)²X.
    """
    a, b, c = coefficients
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices  # the Gram matrix below is the smaller one
    x = (x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)).to(_precision(matrices))  # spectral norm at most 1
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


def _precision(matrices: Tensor) -> torch.dtype:
    """bfloat16 does for the iteration, where the device multiplies it faster than float32."""
    if matrices.dtype == torch.float64:
        return torch.float64
    fast = matrices.device.type == "cuda" or (matrices.device.type == "cpu" and cpu_has_bf16())
    return torch.bfloat16 if fast else torch.float32


def _whole(matrix: Tensor) -> Tensor:
    return matrix.full_tensor() if isinstance(matrix, DTensor) else matrix


def _own(matrix: Tensor) -> Tensor:
    """This rank's part, which shares its memory."""
    return matrix.to_local() if isinstance(matrix, DTensor) else matrix


def _placed_like(whole: Tensor, matrix: Tensor) -> Tensor:
    """Every rank has the whole: each keeps its part, nothing is sent."""
    if not isinstance(matrix, DTensor):
        return whole
    return distribute_tensor(whole, matrix.device_mesh, matrix.placements, src_data_rank=None)
