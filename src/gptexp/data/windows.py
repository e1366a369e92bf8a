"""The loaders of a run, as Lightning asks for them."""

from __future__ import annotations

from typing import Any

from gptexp.config import Config
from gptexp.data.batches import Batch, BatchPlan, TrainBatches, ValBatches, loader
from gptexp.data.order import WindowOrder
from gptexp.data.prepare import PreparedData
from gptexp.lean import pl

Batches = list[dict[str, Any]]  # {"rank", "micro", "tokens" (B, T), "targets" (B, T)} for each forward pass of a step


class Windows(pl.LightningDataModule):
    """The loaders of law 1: exactly as long as the run, resumed by their first step alone."""

    def __init__(self, config: Config, data: PreparedData, plan: BatchPlan, first_step: int) -> None:
        super().__init__()
        self.config, self.data, self.plan, self.first_step = config, data, plan, first_step
        self.order = WindowOrder(len(data.train), config.model.block_size, config.seed)

    def train_dataloader(self) -> Any:
        assert self.trainer is not None
        batches = self._batches(self.trainer.global_rank, self.first_step, self.config.trainer.max_steps)
        return self._loader(batches, self.config.data.num_workers)

    def _batches(self, rank: int, first_step: int, last_step: int) -> TrainBatches:
        return TrainBatches(
            self.data.train, self.order, self.plan, rank=rank, first_step=first_step, last_step=last_step
        )

    def batches_of(self, step: int) -> Batches:
        """Every forward pass of a step, counted from 1, on every rank."""
        return [
            {"rank": rank, "micro": micro, "tokens": tokens.contiguous(), "targets": targets.contiguous()}
            for rank in range(self.plan.world_size)
            for micro, (tokens, targets) in enumerate(_items(self._batches(rank, step - 1, step)))
        ]

    def val_dataloader(self) -> Any:
        assert self.trainer is not None
        batches = ValBatches(
            self.data.val,
            self.config.model.block_size,
            eot=self.data.tokenizer.eot,
            batch=self.plan.micro_batch,
            rank=self.trainer.global_rank,
            world_size=self.plan.world_size,
        )
        return self._loader(batches, 0)

    def _loader(self, batches: Any, workers: int) -> Any:
        assert self.trainer is not None
        return loader(batches, workers=workers, pin=self.trainer.strategy.root_device.type == "cuda")


def _items(batches: TrainBatches) -> list[Batch]:
    return [batches[j] for j in range(len(batches))]
