"""The LightningModule: loss, learning rate, gradient norm and validation score."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gptexp.config import Config
from gptexp.config.schedule import lr_multiplier
from gptexp.data.batches import Batch, BatchPlan
from gptexp.machine.sharding import is_sharded
from gptexp.objectives import Objective, Score
from gptexp.training.loop import QuickModule
from gptexp.training.nonfinite import Watch, require_finite
from gptexp.training.optimizers import build_optimizer
from gptexp.util.seeds import dropout_seed, seed_generator


class LitGPT(QuickModule):
    """Trains any model by any objective.

    max_steps: optimizer steps of the whole run.
    first_step: optimizer steps taken before this process started (resume); `step` starts at this number.
    compiled: whether the model is compiled.
    score: the score of the last validation, over all batches and ranks.
    """

    def __init__(
        self,
        model: nn.Module,
        config: Config,
        plan: BatchPlan,
        objective: Objective[Any],
        *,
        max_steps: int,
        first_step: int = 0,
    ) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.config, self.plan = config, plan
        self.max_steps, self.first_step = max_steps, first_step
        self._batches_score: Score | None = None  # of the validation batches until now, on this rank
        self.score: Score | None = None
        self.grad_norm: torch.Tensor | None = None
        self.watch = Watch(waits=True)
        self.compiled = False
        self._loss_sum: torch.Tensor | float = 0.0
        self._sharded = False

    @property
    def step(self) -> int:
        """Optimizer steps since the start of the run, over all restarts."""
        return self.first_step + self.trainer.global_step

    @property
    def lr(self) -> float:
        """The learning rate of the last step."""
        return self.config.lr * self.multiplier

    @property
    def multiplier(self) -> float:
        """The factor of all peak learning rates in the last step."""
        return lr_multiplier(self.config.schedule, self.max_steps, self.step - 1)

    def configure_model(self) -> None:
        """Shard the model. Lightning calls this before it creates the optimizer, and again on resume."""
        mesh = getattr(self, "_device_mesh", None)
        if mesh is not None and not self._sharded:
            from gptexp.training.fsdp import shard

            shard(self.model, mesh["data_parallel"])
            self._sharded = True

    def on_train_start(self) -> None:
        self.watch = Watch(waits=self.device.type == "cpu")

    # ------------------------------------------------------------------------------ training

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        micro = batch_idx % self.plan.accumulate
        self._reseed(dropout_seed(self.config.seed, self.step, self.global_rank, micro))
        loss = self.objective.loss(self.model, batch)
        self._loss_sum = loss.detach() + (self._loss_sum if micro else 0.0)
        return loss

    def _reseed(self, seed: int) -> None:
        """Seed this device and the CPU. torch.manual_seed takes a millisecond, and more memory at each call."""
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index].manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)
        seed_generator(torch.default_generator, seed)  # plug-ins may draw from it on any device

    def train_loss(self) -> float:
        """Return the mean loss over the global batch of the last step.

        All ranks must call it; it blocks until the device is done.

        Raises:
            NonFiniteLoss: the loss, or the loss or gradient of an earlier step, is not finite.
        """
        self.watch.look()
        mean = torch.as_tensor(self._loss_sum, device=self.device) / self.plan.accumulate
        loss = float(self.trainer.strategy.reduce(mean, reduce_op="mean"))
        require_finite("train/loss", loss, self.step)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        scaled = self.trainer.precision == "16-mixed"  # a fused step and a gradient scaler exclude each other
        return build_optimizer(self.model, self.config.optimizer, self.config.lr, fused=False if scaled else None)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Set the learning rate, a pure function of the step, and take the step."""
        multiplier = lr_multiplier(self.config.schedule, self.max_steps, self.step)
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * multiplier
        optimizer.step(closure=optimizer_closure)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        limit = self.config.trainer.gradient_clip
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), float("inf") if limit is None else limit)
        self.grad_norm = norm.full_tensor() if is_sharded(norm) else norm
        if self.trainer.precision != "16-mixed":  # there the scaler skips overflowing steps
            loss = torch.as_tensor(self._loss_sum) if self.plan.world_size == 1 else None
            self.watch.step(optimizer, self.grad_norm, loss, self.step + 1)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Make Lightning validate every val_every_steps steps of the run, and after the last step.

        Lightning's interval counts micro-batches since the start of the process.
        """
        done = (batch_idx + 1) % self.plan.accumulate == 0
        self.trainer.val_check_batch = 1 if done and self.validates(self.step) else float("inf")

    def logs(self, step: int) -> bool:
        """Return whether the values of this step are logged."""
        return step % self.config.trainer.log_every_steps == 0 or step in (1, self.max_steps)

    def validates(self, step: int) -> bool:
        """Return whether a validation follows this step."""
        return step % self.config.trainer.val_every_steps == 0 or step == self.max_steps

    # ---------------------------------------------------------------------------- validation

    def on_validation_epoch_start(self) -> None:
        self._batches_score = None

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        found = self.objective.measure(self.model, batch)
        self._batches_score = found if self._batches_score is None else self._batches_score + found

    def total_score(self) -> Score:
        """Return the sum of the scores of all ranks, so that it does not depend on the layout."""
        assert self._batches_score is not None
        if self.plan.world_size == 1:
            return self._batches_score
        sums = torch.tensor(self._batches_score.sums(), dtype=torch.float64, device=self.device)
        return self.objective.score(self.trainer.strategy.reduce(sums, reduce_op="sum").tolist())

    def on_validation_epoch_end(self) -> None:
        self.score = self.total_score()
        loss = self.config.objective.metrics[0]
        require_finite(loss, self.score.metrics()[loss], self.step)
        self.log_dict(self.score.metrics(), logger=False)  # for plug-ins such as EarlyStopping
