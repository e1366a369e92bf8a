"""A forward pass of a GPT that keeps what every layer reads, writes and attends to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gptexp.models.gpt import GPT, Block

_Calls = dict[nn.Module, tuple[tuple[Any, ...], Tensor]]  # the inputs and the output of each module


@dataclass(frozen=True)
class Layer:
    """What one block does with a text.

    before, after: the residual stream that it reads and leaves, (1, T, C). attention, feed_forward: what these two add
    to it, (1, T, C); None: it has no feed-forward layer. weights: of attention, (H, T, T). others: the inputs of the
    block besides the stream.
    """

    block: Block
    before: Tensor
    others: tuple[Any, ...]
    attention: Tensor
    weights: Tensor
    feed_forward: Tensor | None
    after: Tensor

    def again(self, x: Tensor) -> Tensor:
        """Return what the block makes of other streams (B, T, C) of the same text."""
        out: Tensor = self.block(x, *self.others)
        return out


@dataclass(frozen=True)
class Trace:
    """A text in a GPT. tokens: (T,). embedded: the first residual stream, (1, T, C). logits: (T, V)."""

    model: GPT
    tokens: Tensor
    embedded: Tensor
    layers: list[Layer]
    logits: Tensor


@torch.no_grad()
def trace(model: GPT, tokens: Tensor) -> Trace:
    """Run the model on tokens (T,) in eval mode, and watch it: the logits are those that it always computes."""
    transformer, blocks = model.eval().transformer, [b for b in model.transformer.h if isinstance(b, Block)]
    parts = [part for block in blocks for part in (block, block.attn, block.mlp) if part is not None]
    with _watched([transformer.drop, *parts]) as calls:
        logits = model(tokens[None])[0]
    return Trace(model, tokens, calls[transformer.drop][1], [_layer(block, calls) for block in blocks], logits)


def _layer(block: Block, calls: _Calls) -> Layer:
    (before, *others), after = calls[block]
    (normed, rope, mask, *_), attention = calls[block.attn]
    weights = block.attn.weights(normed, rope, mask)[0]
    feed_forward = None if block.mlp is None else calls[block.mlp][1]
    return Layer(block, before, tuple(others), attention, weights, feed_forward, after)


@contextmanager
def _watched(modules: Iterable[nn.Module]) -> Iterator[_Calls]:
    """Yield a table that the calls of these modules fill."""
    calls: _Calls = {}
    handles = [m.register_forward_hook(lambda m, given, made: calls.update({m: (given, made)})) for m in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
