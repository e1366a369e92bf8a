"""A forward pass of a model in training whose layers are observed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


@contextmanager
def observing(model: nn.Module, handles: list[RemovableHandle]) -> Iterator[None]:
    """A context without gradients, dropout and compiled code, which leaves no trace in the model.

    handles: of the hooks, which are removed at the end. Compiled code has no place for hooks.
    """
    compiled, model._compiled_call_impl = model._compiled_call_impl, None
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
        model._compiled_call_impl = compiled
        for handle in handles:
            handle.remove()
