"""Norms of gradient, weights and update during training, by group of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gptexp.machine.lightning import pl
from gptexp.machine.sharding import is_sharded
from gptexp.runs.norms import GRADIENT, QUANTITIES, RELATIVE, UPDATE, WEIGHT, column, group_of, in_order
from gptexp.training.module import LitGPT
from gptexp.training.optimizers import embeddings, named_parameters

Groups = dict[str, list[nn.Parameter]]


class Norms(pl.Callback):
    """Logs the norms of gptexp.runs.norms at each logged step; training is unchanged.

    The update is measured with a copy of the trained weights, which exists only during a logged step. Replicas are
    equal, so rank 0 measures; sharded weights are measured by all ranks.
    """

    def __init__(self) -> None:
        self._gradients: dict[str, Tensor] = {}
        self._before: dict[str, list[Tensor]] | None = None

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, lit: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        assert isinstance(lit, LitGPT)
        sharded = isinstance(trainer.strategy, pl.strategies.ModelParallelStrategy)
        if lit.logs(lit.step + 1) and (trainer.is_global_zero or sharded):
            groups = groups_of(lit.model)
            gradients = {name: [p.grad for p in group if p.grad is not None] for name, group in groups.items()}
            self._gradients = {name: norm_of(found) for name, found in gradients.items() if found}
            self._before = {name: [p.detach().clone() for p in group] for name, group in groups.items()}

    def on_train_batch_end(self, trainer: pl.Trainer, lit: pl.LightningModule, *_: Any) -> None:
        assert isinstance(lit, LitGPT)
        if self._before is None:
            return
        measured = {GRADIENT: self._gradients, **_changes(self._before, groups_of(lit.model))}
        self._gradients, self._before = {}, None
        values = _as_row(measured)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=lit.step)


def groups_of(model: nn.Module) -> Groups:
    """Return the trained parameters by group, from the input of the model to its output."""
    tables, groups = embeddings(model), Groups()
    for name, parameter in named_parameters(model):
        if parameter.requires_grad:
            groups.setdefault(group_of(name, embedding=parameter in tables), []).append(parameter)
    return {name: groups[name] for name in in_order(groups)}


def norm_columns(model: nn.Module) -> list[str]:
    """Return the columns that the model's norms have, in order."""
    return [column(quantity, group) for quantity in QUANTITIES for group in groups_of(model)]


def norm_of(tensors: Iterable[Tensor]) -> Tensor:
    """Return the L2 norm of all tensors together; all ranks must call it if they are sharded."""
    norm = nn.utils.get_total_norm(tensors)
    return norm.full_tensor() if is_sharded(norm) else norm


@torch.no_grad()
def _changes(before: Mapping[str, list[Tensor]], groups: Groups) -> dict[str, dict[str, Tensor]]:
    """Return the norms of weights and updates, by quantity and group."""
    found: dict[str, dict[str, Tensor]] = {WEIGHT: {}, UPDATE: {}, RELATIVE: {}}
    for name, parameters in groups.items():
        weight = norm_of(parameters)
        update = norm_of([now - then for now, then in zip(parameters, before[name], strict=True)])
        for quantity, norm in ((WEIGHT, weight), (UPDATE, update), (RELATIVE, update / weight)):
            found[quantity][name] = norm
    return found


def _as_row(measured: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
    """Return the values by column. They are copied from the device together, which waits for it once."""
    norms = {column(quantity, group): norm for quantity, of in measured.items() for group, norm in of.items()}
    return dict(zip(norms, torch.stack(list(norms.values())).tolist(), strict=True))
