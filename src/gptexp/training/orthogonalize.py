"""Orthogonalization of batches of matrices by polynomial iterations.

Letters of shapes: N matrices, A rows, B columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gptexp.machine.hardware import cpu_has_bf16

Coefficients = tuple[float, float, float]
Matrices = Float[Tensor, "N A B"]
Squares = Float[Tensor, "N A A"]

MERGED = 5  # iterations whose polynomials are multiplied; the rounding errors of more grow without bound

# Polar Express (arXiv 2505.16932, algorithm 1) for singular values from 1e-3 to 1, with the paper's cushion of 0.024:
# in each iteration the quintic with the least largest error. All but the limit, the last, are made for singular values
# that rounding has enlarged to at most 1.01.
POLAR_EXPRESS: tuple[Coefficients, ...] = (
    (8.205160414005567, -22.901934987056027, 16.4607249101803),
    (4.066395159942772, -2.8611540867551417, 0.5183995226694741),
    (3.9095949044379155, -2.8233517350395125, 0.5250369769390014),
    (3.285564017198615, -2.4153019596359457, 0.4852940655279089),
    (2.277873287083978, -1.6198217652654405, 0.398480787041683),
    (1.8725756512746525, -1.2307042574884317, 0.35851616209511744),
    (1.8564371097532668, -1.2132392819134057, 0.35679978941125096),
    (1.875, -1.25, 0.375),
)


def polar_express(steps: int) -> list[Coefficients]:
    """Return the coefficients of each iteration of Polar Express; the last ones are repeated."""
    return [POLAR_EXPRESS[min(step, len(POLAR_EXPRESS) - 1)] for step in range(steps)]


def orthogonalised(matrices: Matrices, iterations: Sequence[Coefficients], eps: float) -> Matrices:
    """Return each matrix with its singular values near 1 and the same singular vectors.

    iterations: a, b, c of a·X + b·(XXᵀ)X + c·(XXᵀ)²X, for each iteration. eps: least norm that a matrix is divided by.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices  # the Gram matrix below is the smaller one
    x = (x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)).to(_precision(matrices))  # spectral norm at most 1
    # Merged iterations need fewer products if B > 1.5 A. They square the condition number: too much for bfloat16.
    merged = MERGED if x.shape[-1] > 1.5 * x.shape[-2] and x.dtype != torch.bfloat16 else 1
    for start in range(0, len(iterations), merged):
        x = _iterated(x, iterations[start : start + merged])
    return (x.mT if tall else x).to(matrices.dtype)


def _iterated(x: Matrices, iterations: Sequence[Coefficients]) -> Matrices:
    """Return p_n(Gₙ)…p_1(G₁)X for p(G) = aI + bG + cG² and the Gram matrix G of each iteration.

    All these commute. So G₂ = p_1(G₁)²G₁, and only the first Gram matrix and the result are products with the long X.
    """
    gram = x @ x.mT
    product: Squares | None = None  # p_k(Gₖ)…p_1(G₁) for the k iterations until now
    for number, (a, b, c) in enumerate(iterations, start=1):
        rest = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # p(G) - aI
        if len(iterations) == 1:
            return torch.baddbmm(x, rest, x, beta=a)
        if number < len(iterations):
            half = torch.baddbmm(gram, rest, gram, beta=a)  # p(G)G
            gram = torch.baddbmm(half, rest, half, beta=a)
        if product is None:
            product = rest.clone()
            product.diagonal(dim1=-2, dim2=-1).add_(a)
        else:
            product = torch.baddbmm(product, rest, product, beta=a)
    assert product is not None
    return product @ x


def by_rows(matrices: Matrices, heights: list[int], function: Callable[[Matrices], Matrices]) -> Matrices:
    """Return the results of `function` for blocks of rows of these heights; blocks of equal height are one batch."""
    if len(heights) == 1:
        return function(matrices)
    blocks = list(matrices.split(heights, dim=1))
    for height in dict.fromkeys(heights):
        equal = [index for index, other in enumerate(heights) if other == height]
        results = function(torch.cat([blocks[index] for index in equal])).chunk(len(equal))
        for index, result in zip(equal, results, strict=True):
            blocks[index] = result
    return torch.cat(blocks, dim=1)


def _precision(matrices: Tensor) -> torch.dtype:
    """Return bfloat16, which suffices for the iteration, where the device multiplies it faster than float32."""
    if matrices.dtype == torch.float64:
        return torch.float64
    fast = matrices.device.type == "cuda" or (matrices.device.type == "cpu" and cpu_has_bf16())
    return torch.bfloat16 if fast else torch.float32
