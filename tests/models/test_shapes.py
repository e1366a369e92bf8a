"""Shapes in the annotations of models/ are checked in tests, and cost nothing outside them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor

from gptexp.config.model import BigramConfig, MLPConfig
from gptexp.models.attention import rotate
from gptexp.models.bigram import Bigram
from gptexp.models.classifier import Classifier
from gptexp.models.gpt import Transformer
from gptexp.models.kernels.attention import attention_by_products
from gptexp.models.kernels.chunked_loss import linear_cross_entropy
from gptexp.models.layers import FeedForward, position_angles
from gptexp.models.losses import cross_entropy
from gptexp.models.mlp import MLP
from support.small_gpt import V, build, small, tokens


def x(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


def attention_layer() -> Any:
    return build(small()).transformer.h[0].attn


WRONG: dict[str, Callable[[], object]] = {
    "gpt: one sequence instead of a batch": lambda: build(small())(tokens(8)[0]),
    "gpt: float tokens": lambda: build(small())(tokens(8).double()),
    "gpt: targets of another length": lambda: build(small())(tokens(8), targets=tokens(7)),
    "gpt: lengths of another batch": lambda: build(small())(tokens(8), lengths=torch.tensor([8, 8, 8])),
    "bigram: one sequence": lambda: Bigram(BigramConfig(), V)(tokens(8)[0]),
    "mlp: one sequence": lambda: MLP(MLPConfig(), V)(tokens(8)[0]),
    "classifier: lengths of another batch": lambda: Classifier(build(small()), 3, auxiliary=False).double()(
        tokens(8), torch.tensor([8])
    ),
    "attention: two dimensions": lambda: attention_layer()(x(8, 16), None, None, None),
    "products: fewer values than keys": lambda: attention_by_products(
        x(2, 2, 8, 4), x(2, 2, 8, 4), x(2, 2, 7, 4), None, 0.0
    ),
    "rotate: angles of another length": lambda: rotate(x(2, 2, 8, 4), x(7, 2, 2)),
    "feed-forward: tokens": lambda: FeedForward(small()).double()(tokens(8)),
    "loss: logits of another batch": lambda: cross_entropy(x(3, 8, V), tokens(8)),
    "chunked loss: a head of another width": lambda: linear_cross_entropy(x(2, 8, 16), x(V, 15), tokens(8)),
    "positions: float": lambda: position_angles(x(8), 4, torch.float64),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_a_wrong_shape_or_dtype_fails(call: Callable[[], object]) -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match=r"checking the parameters of gptexp\.models"):
        call()


def test_a_wrong_result_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(small())
    monkeypatch.setattr(Transformer, "embed", lambda self, tokens, *_: x(*tokens.shape, 15))
    model.transformer.h, model.transformer.ln_f = torch.nn.ModuleList(), torch.nn.Flatten(1)
    with pytest.raises(jaxtyping.TypeCheckError, match=r"checking the return value of gptexp\.models"):
        model.transformer(tokens(8))


def test_outside_tests_shapes_are_not_checked() -> None:
    program = (
        "import sys, torch\n"
        "from gptexp.models.losses import cross_entropy\n"
        "print(hasattr(cross_entropy, '__wrapped__'), 'beartype' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.split() == ["False", "False"]
