"""Lightning's Trainer as an experiment needs it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from gptexp.config import Config
from gptexp.config.training import Strategy
from gptexp.data.batches import BatchPlan
from gptexp.machine import hardware, rank_environment
from gptexp.machine.lightning import LightningEnvironment, TorchElasticEnvironment, pl
from gptexp.training.loggers import MetricsCSV, tensorboard
from gptexp.training.loop import NoProfiler
from gptexp.training.plugins import load_plugins


def build_trainer(
    config: Config,
    folder: Path,
    plan: BatchPlan,
    precision: str,
    callbacks: list[pl.Callback],
    *,
    first_step: int,
    max_steps: int,
    columns: Sequence[str],
) -> pl.Trainer:
    """Return a Trainer for the steps from `first_step` to `max_steps`. columns: that not every run logs.

    Lightning's checkpoints, progress bar, sampler and profiler are off: gptexp has its replacements.
    """
    _silence_lightning()
    settings, rank = config.trainer, rank_environment.current()
    # A launcher starts the ranks. Without one this process is alone, also on a node of SLURM.
    plugins: list[Any] = [TorchElasticEnvironment() if rank else LightningEnvironment()]
    double = precision == "64-true"
    if double:  # as a plug-in, because Lightning's sharded strategy does not accept the name
        plugins.append(pl.plugins.DoublePrecision())
    accelerator = hardware.accelerator_of(config)
    return pl.Trainer(
        max_steps=max_steps - first_step,
        max_epochs=-1,
        accelerator="gpu" if accelerator == "cuda" else accelerator,
        devices=hardware.processes_of(config),
        num_nodes=rank.nodes if rank else 1,
        strategy=_strategy(config, plan.world_size),
        plugins=plugins,
        precision=None if double else cast(Any, precision),
        accumulate_grad_batches=plan.accumulate,
        logger=_loggers(config, folder, first_step, columns),
        callbacks=callbacks,
        default_root_dir=str(folder),
        check_val_every_n_epoch=None,
        val_check_interval=1,
        num_sanity_val_steps=0,
        log_every_n_steps=settings.log_every_steps,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        profiler=NoProfiler(),
    )


def _loggers(config: Config, folder: Path, first_step: int, columns: Sequence[str]) -> list[pl.loggers.Logger]:
    loggers: list[pl.loggers.Logger] = [MetricsCSV(folder, config.metrics, first_step, columns)]
    if config.logger.tensorboard:
        loggers.append(tensorboard(folder, config.metrics, first_step, columns))
    return [*loggers, *load_plugins("logger", config.logger.plugins).values()]


def _strategy(config: Config, world_size: int) -> str | pl.strategies.Strategy:
    strategy = config.trainer.strategy
    if strategy is Strategy.fsdp:
        from gptexp.training.fsdp import ShardedStrategy  # torch's FSDP2 takes long to import

        return ShardedStrategy(world_size)
    if strategy is Strategy.ddp or world_size > 1:
        return pl.strategies.DDPStrategy(static_graph=False, gradient_as_bucket_view=True)
    return "auto"


def _silence_lightning() -> None:
    """Hide Lightning's tips and notices: they concern choices that gptexp makes for the user."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
