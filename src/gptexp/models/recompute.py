"""Recomputation of activations, also called activation checkpointing (Chen et al. 2016, arXiv 1604.06174)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gptexp.config.rules import require
from gptexp.config.training import NO_BLOCKS


class Recomputable(nn.Module):
    """A module that can keep only its inputs for the backward pass, which then computes the rest again.

    torch restores the state of its generators for the second computation, so that dropout has the same masks.
    Subclasses define `compute` instead of `forward`.
    """

    recompute = False

    def forward(self, *inputs: Any) -> Tensor:
        """`compute` of the inputs; nothing is computed twice without gradients or in eval mode."""
        if self.recompute and self.training and torch.is_grad_enabled():
            again: Tensor = checkpoint(self.compute, *inputs, use_reentrant=False)
            return again
        return self.compute(*inputs)

    def compute(self, *inputs: Any) -> Tensor:
        raise NotImplementedError


def recompute_blocks(model: nn.Module) -> None:
    """Recompute the activations of each block of the model in training.

    Raises:
        ValueError: the model has no blocks.
    """
    blocks = [module for module in model.modules() if isinstance(module, Recomputable)]
    require(bool(blocks), "trainer.recompute", "blocks", NO_BLOCKS)
    for block in blocks:
        block.recompute = True
