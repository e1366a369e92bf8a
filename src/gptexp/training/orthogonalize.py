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
