"""torch.optim.Muon with batched matrices.

The step of torch's class processes one matrix at a time in bfloat16: this is slow on a CPU, and on sharded
matrices it rounds partial sums. Here matrices of equal shape go through the Newton-Schulz iteration together,
sharded ones are gathered first, so that the result does not depend on sharding, and the precision suits the device.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gptexp.machine.sharding import is_sharded, placed_like
from gptexp.training.eager import EagerOptimizer
from gptexp.training.orthogonalize import Matrices, by_rows, orthogonalised

ROW_AVERAGE = "row_square_avg"  # the state of NorMuon, (A,)
NORMUON_EPS = 1e-8


class BatchedMuon(EagerOptimizer, torch.optim.Muon):
    """Muon (Jordan et al. 2024) with the update sizes of arXiv 2502.16982; settings and state as in torch.

    found_inf: a flag on the device, as in fused AdamW; if it is not 0, the weights do not change.
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
            for matrices in by_shape.values():
                self._update(matrices, group)
        return loss

    def _update(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        """Update all matrices of one shape (A, B)."""
        stacked = torch.stack([_whole(self._momentum(matrix, group)) for matrix in matrices])  # (N, A, B)
        directions, size = _directions(stacked, group)
        if group.get("normuon_beta2") is not None:
            directions = self._with_equal_rows(directions, matrices, group)
        flag = self.found_inf
        for matrix, direction in zip(matrices, directions, strict=True):
            local, direction = _local(matrix), _local(placed_like(direction, matrix))
            before = local if flag is None else local.clone()
            local.mul_(1 - group["lr"] * group["weight_decay"])
            local.add_(direction, alpha=-size * group["lr"])
            if flag is not None:
                local.copy_(torch.where(flag > 0, before, local))

    def _momentum(self, matrix: Tensor, group: dict[str, Any]) -> Tensor:
        """Return the gradient with momentum, Nesterov momentum if `nesterov` is set."""
        state, gradient = self.state[matrix], matrix.grad
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"]
        average.lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(average, group["momentum"]) if group["nesterov"] else average

    def _with_equal_rows(self, directions: Matrices, matrices: list[Tensor], group: dict[str, Any]) -> Matrices:
        """Return the directions of NorMuon (arXiv 2510.05491, algorithm 1).

        Each row, the weights of one neuron, is divided by the root of the running average of its mean square; then each
        part of a matrix has its former norm again. The averages are whole on every rank.
        """
        rows, width = directions.shape[1:]
        squares = torch.linalg.vector_norm(directions, dim=2).square() / width  # (N, A)
        averages = [self.state[matrix].setdefault(ROW_AVERAGE, squares.new_zeros(rows)) for matrix in matrices]
        for average, square in zip(averages, squares, strict=True):
            average.lerp_(square, 1 - group["normuon_beta2"])
        scales = (torch.stack(averages).sqrt() + NORMUON_EPS).reciprocal()  # (N, A)
        heights = _heights(directions, group)
        before, after = (
            torch.cat([part.sum(1, keepdim=True).expand_as(part) for part in values.split(heights, dim=1)], dim=1)
            for values in (squares, squares * scales.square())
        )
        scales = scales * (before / after.clamp(min=torch.finfo(after.dtype).tiny)).sqrt()
        return directions * scales[..., None]


def _directions(stacked: Matrices, group: dict[str, Any]) -> tuple[Matrices, float]:
    """Return the directions of the updates and their common size."""
    iterations = [group["ns_coefficients"]] * group["ns_steps"]
    heights = _heights(stacked, group)
    directions = by_rows(stacked, heights, lambda parts: orthogonalised(parts, iterations, group["eps"]))
    return directions, _size((max(heights), stacked.shape[2]))  # which all parts of c_attn share


def _heights(stacked: Matrices, group: dict[str, Any]) -> list[int]:
    """Return the rows of the parts of a matrix that are orthogonalised apart: `heights` of the group, or one part."""
    return list(group.get("heights") or stacked.shape[1:2])


def _size(shape: Sequence[int]) -> float:
    """Return the factor that gives an orthogonal matrix the root mean square of AdamW's updates, section 2.2."""
    return 0.2 * math.sqrt(max(shape))


def _whole(matrix: Tensor) -> Tensor:
    return matrix.full_tensor() if is_sharded(matrix) else matrix


def _local(matrix: Tensor) -> Tensor:
    """Return this rank's part, which shares the matrix's memory."""
    return matrix.to_local() if is_sharded(matrix) else matrix
