"""The data loaders of a run."""

from __future__ import annotations

from typing import Any

from gptexp.config import Config
from gptexp.data.batches import Batch, BatchPlan, loader
from gptexp.data.prepared import PreparedData
from gptexp.machine.lightning import pl
from gptexp.objectives import Objective

Batches = list[dict[str, Any]]  # {"rank", "micro", "tokens" (B, T), …} for each forward pass of a step


class Windows(pl.LightningDataModule):
    """Loaders that end with the run. Batches are a pure function of seed and step; resume needs the first step only."""

    def __init__(
        self,
        config: Config,
        objective: Objective[Any],
        data: PreparedData,
        plan: BatchPlan,
        *,
        first_step: int,
        max_steps: int,
    ) -> None:
        super().__init__()
        self.config, self.objective, self.data, self.plan = config, objective, data, plan
        self.first_step, self.max_steps = first_step, max_steps

    def train_dataloader(self) -> Any:
        assert self.trainer is not None
        batches = self._batches(self.trainer.global_rank, self.first_step, self.max_steps)
        return self._loader(batches, self.config.data.num_workers)

    def _batches(self, rank: int, first_step: int, last_step: int) -> Any:
        return self.objective.train_batches(
            self.data, self.config, self.plan, rank=rank, first_step=first_step, last_step=last_step
        )

    def batches_of(self, step: int) -> Batches:
        """Return the batches of all ranks for one step, counted from 1: one entry per forward pass."""
        return [
            {"rank": rank, "micro": micro, **_named(self.objective, batch)}
            for rank in range(self.plan.world_size)
            for micro, batch in enumerate(_items(self._batches(rank, step - 1, step)))
        ]

    def val_dataloader(self) -> Any:
        assert self.trainer is not None
        batches = self.objective.val_batches(self.data, self.config, self.plan, rank=self.trainer.global_rank)
        return self._loader(batches, 0)

    def first_scored(self) -> Batch:
        """Return the first window or text of the validation, the same on all ranks, as a batch of one."""
        batch = self.objective.val_batches(self.data, self.config, self.plan, rank=0)[0]
        return tuple(part[:1] if part.ndim else part for part in batch)

    def _loader(self, batches: Any, workers: int) -> Any:
        assert self.trainer is not None
        return loader(batches, workers=workers, pin=self.trainer.strategy.root_device.type == "cuda")


def _items(batches: Any) -> list[Batch]:
    return [batches[j] for j in range(len(batches))]


def _named(objective: Objective[Any], batch: Batch) -> dict[str, Any]:
    return {name: tensor.contiguous() for name, tensor in zip(objective.parts, batch, strict=True)}
