"""Merged iterations equal iterations one at a time, and their rounding errors stay small."""

from __future__ import annotations

import pytest
import torch

from gptexp.training import orthogonalize
from gptexp.training.orthogonalize import Coefficients, orthogonalised

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def one_at_a_time(x: torch.Tensor, iterations: list[Coefficients]) -> torch.Tensor:
    """The iterations of matrices (N, A, B) in float64."""
    x = x.double() / x.double().norm(dim=(-2, -1), keepdim=True)
    for a, b, c in iterations:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def matrices(rank: int) -> torch.Tensor:
    """Matrices (2, 12, 40) with singular values from 1e-6 to 1, or fewer singular values than rows."""
    generator = torch.Generator().manual_seed(rank)
    u, v = (torch.linalg.qr(torch.randn(2, size, 12, generator=generator))[0] for size in (12, 40))
    product: torch.Tensor = (u * torch.logspace(0, -6, 12))[..., :rank] @ v.mT[:, :rank]
    return product


@pytest.mark.parametrize("iterations", [[NEWTON_SCHULZ] * n for n in (1, 2, 5, 6)], ids=len)
def test_merged_iterations_equal_iterations_one_at_a_time(iterations: list[Coefficients]) -> None:
    wide = matrices(12).double()
    expected = one_at_a_time(wide, iterations)
    torch.testing.assert_close(orthogonalised(wide, iterations, 1e-7), expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(orthogonalised(wide.mT, iterations, 1e-7), expected.mT, rtol=0, atol=1e-11)


@pytest.mark.parametrize("rank", [1, 3, 12])
@pytest.mark.parametrize(("iterations", "error"), [([NEWTON_SCHULZ] * 5, 3e-3), ([NEWTON_SCHULZ] * 12, 0.5)])
def test_float32_suffices_for_few_singular_values(
    monkeypatch: pytest.MonkeyPatch, iterations: list[Coefficients], error: float, rank: int
) -> None:
    """Without a limit to what is merged, twelve iterations give nan."""
    monkeypatch.setattr(orthogonalize, "cpu_has_bf16", lambda: False)
    given = matrices(rank)
    expected = one_at_a_time(given, iterations)
    found = orthogonalised(given, iterations, 1e-7).double()
    assert (found - expected).norm() < error * expected.norm()
