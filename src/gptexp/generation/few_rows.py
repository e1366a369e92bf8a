"""Products of few rows with weight matrices, as decoding needs them, at the speed of the memory of an AMD CPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gptexp.machine.hardware import cpu_is_amd

MOST = 8  # rows; with 16 both orders take the same time


class FewRows(TorchFunctionMode):
    """Computes F.linear of at most MOST rows in float32 as W x^T instead of x W^T, for inference.

    MKL, which torch uses on AMD CPUs, is up to four times as fast in this order, because its threads share the work.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.linear and not kwargs and has_few_rows(args[0]):
            return few_rows_linear(*args)
        return func(*args, **(kwargs or {}))


def has_few_rows(x: Tensor) -> bool:
    """Return whether x (..., in) has at most MOST rows of float32."""
    return x.dtype == torch.float32 and x.numel() <= MOST * x.shape[-1]


def few_rows_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b, (..., in) -> (..., out), by the product of W and the columns of x."""
    shape, columns = (*x.shape[:-1], -1), x.reshape(-1, x.shape[-1]).T  # (in, rows)
    if columns.shape[1] == 1:
        vector = columns[:, 0]
        return (weight.mv(vector) if bias is None else torch.addmv(bias, weight, vector)).view(shape)
    product = weight @ columns if bias is None else torch.addmm(bias[:, None], weight, columns)  # (out, rows)
    return product.T.contiguous().view(shape)


def fast_linear(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which inference on the device computes few rows in the faster order."""
    return FewRows() if device.type == "cpu" and cpu_is_amd() else nullcontext()
