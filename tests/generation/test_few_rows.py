"""Products of few rows equal torch's, and decoding uses them on AMD CPUs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gptexp.generation import few_rows
from gptexp.generation.decoding import make_decoder
from gptexp.generation.few_rows import MOST, FewRows, few_rows_linear
from support.small_gpt import build, small


@pytest.mark.parametrize("rows", [1, 2, MOST])
@pytest.mark.parametrize("biased", [False, True])
def test_a_product_of_few_rows_equals_that_of_torch(rows: int, biased: bool) -> None:
    x, weight, bias = torch.randn(rows, 1, 24), torch.randn(40, 24), torch.randn(40)
    arguments = (x, weight, bias) if biased else (x, weight)
    found, expected = few_rows_linear(*arguments), F.linear(*arguments)
    assert found.is_contiguous()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert found.shape == expected.shape


@pytest.mark.parametrize("amd", [False, True])
def test_decoding_uses_them_for_new_tokens_on_amd_cpus(monkeypatch: pytest.MonkeyPatch, amd: bool) -> None:
    calls: list[int] = []

    def counted(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        calls.append(x.numel() // x.shape[-1])
        return few_rows_linear(x, *rest)

    monkeypatch.setattr(few_rows, "cpu_is_amd", lambda: amd)
    monkeypatch.setattr(few_rows, "few_rows_linear", counted)
    model = build(small(), dtype=torch.float32)
    decoder = make_decoder(model, [[1, 2, 3, 4], [5, 6, 7, 8], [3, 1, 2, 4]], max_new_tokens=4)
    decoder.next_logits()  # of twelve tokens; only the head has three rows
    decoder.append([1, 2, 3])
    found = decoder.next_logits()
    assert calls == ([3] * (1 + 2 * 4 + 1) if amd else [])
    expected = model(torch.tensor([[1, 2, 3, 4, 1], [5, 6, 7, 8, 2], [3, 1, 2, 4, 3]]))[:, -1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_other_dtypes_and_more_rows_are_computed_by_torch() -> None:
    for x in (torch.randn(MOST + 1, 8), torch.randn(2, 8, dtype=torch.float64)):
        weight = torch.randn(4, 8, dtype=x.dtype)
        with FewRows():
            found = F.linear(x, weight)
        assert torch.equal(found, F.linear(x, weight))
