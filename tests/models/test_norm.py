"""RMSNorm by the kernel of LayerNorm equals torch's RMSNorm."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gptexp.models.kernels.norm import RMSNorm, rms_norm


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_rms_norm_and_its_gradients_equal_torchs(weighted: bool, transposed: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    x = (3 + torch.randn(2, 7, 5, 16, generator=generator, dtype=torch.float64)).requires_grad_()
    given = x.transpose(1, 2) if transposed else x
    weight = torch.randn(16, generator=generator, dtype=torch.float64, requires_grad=True) if weighted else None
    upstream = torch.randn(given.shape, generator=generator, dtype=torch.float64)
    inputs = (x,) if weight is None else (x, weight)
    expected, found = F.rms_norm(given, (16,), weight, 0.1), rms_norm(given, weight, 0.1)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    wanted = torch.autograd.grad(expected, inputs, upstream)
    torch.testing.assert_close(torch.autograd.grad(found, inputs, upstream), wanted, rtol=1e-12, atol=1e-12)


def test_a_frozen_gain_gets_no_gradient() -> None:
    norm, x = RMSNorm(8, eps=1e-5), torch.randn(3, 8, requires_grad=True)
    norm.weight.requires_grad_(False)
    norm(x).sum().backward()
    assert norm.weight.grad is None
    assert x.grad is not None


def test_rms_norm_of_bf16_is_torchs() -> None:
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert torch.equal(rms_norm(x, None, 1e-5), F.rms_norm(x, (8,), None, 1e-5))
