"""The one composition root: Config -> tokenizer, data, model, trainer. Doors, tests and notebooks enter here."""

from __future__ import annotations

import hashlib
import logging
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from torch import nn

from gptexp.config import Config, Strategy
from gptexp.config.conversion import to_plain
from gptexp.config.environment_variables import GROUPS
from gptexp.data.batches import BatchPlan, plan_batches, scored
from gptexp.data.prepared import PreparedData
from gptexp.data.shards import TokenStore
from gptexp.machine import hardware, rank_environment, ranks
from gptexp.machine.lightning import LightningEnvironment, TorchElasticEnvironment, pl
from gptexp.models import flops
from gptexp.models.build import Measured, measure_model, seeded
from gptexp.models.lora import adapt, merged
from gptexp.models.weights import load_weights
from gptexp.objectives import Objective, implementation
from gptexp.objectives.loading import initial_weights
from gptexp.runs import checkpoint as ckpt
from gptexp.runs.code_hash import code_sha256
from gptexp.runs.layout import CHECKPOINTS
from gptexp.runs.provenance import versions
from gptexp.tokenizers import Tokenizer, load_tokenizer
from gptexp.training.callbacks.bundle import Bundle
from gptexp.training.callbacks.checkpoints import Checkpoints
from gptexp.training.callbacks.confusion import ConfusionMatrix
from gptexp.training.callbacks.progress import ProgressLine
from gptexp.training.callbacks.record import RunRecord
from gptexp.training.callbacks.samples import TextSamples
from gptexp.training.datamodule import Windows
from gptexp.training.loggers import MetricsCSV, tensorboard
from gptexp.training.loop import NoProfiler, skip_empty_hooks
from gptexp.training.module import LitGPT
from gptexp.training.optimizers import load_named_optimizer_state
from gptexp.training.plugins import load_plugins
from gptexp.training.starting_point import (
    best_file,
    has_ended,
    history_since,
    last_sums,
    open_source,
    require_same_data,
    restore_callbacks,
)


@dataclass(kw_only=True)
class Experiment:
    """Everything that training needs, built from a Config."""

    config: Config
    folder: Path
    objective: Objective[Any]
    data: PreparedData
    model: nn.Module
    lit: LitGPT
    trainer: pl.Trainer
    record: RunRecord
    samples: TextSamples | None
    datamodule: Windows
    plan: BatchPlan
    precision: tuple[str, str]
    compiled: tuple[bool, str]
    parameters: int
    trainable: int
    flops_per_token: float
    ended: bool  # its checkpoint is of its last step, and only the result is missing
    best: Path | None  # the best checkpoint of the run that it goes on from


# ------------------------------------------------------------------------------- the whole


def build(config: Config, folder: Path, *, console: Console, world_size: int = 1) -> Experiment:
    """Build the experiment; what can be refused is refused before anything large is allocated.

    Raises:
        ValueError: the text, the batch, the memory or the source of the weights is at fault.
    """
    source = open_source(config, folder)
    tokenizer = load_tokenizer(source.tokenizer) if source else config.tokenizer
    kind = implementation(config.objective.kind)
    with ranks.first_then_others(ranks.PREPARED):
        data = kind.prepare(config, tokenizer, Path(config.paths.cache))
    ranks.require_alike(_found_here(data, source))
    require_same_data(config, source, data)
    objective = kind(config.objective, data.tokenizer, data.facts)
    make = partial(objective.make_model, config.model)
    size = measure_model(make, config.model.block_size, config.finetune)
    needed = flops.training_bytes(size.parameters, size.trainable)
    hardware.require_memory(size.parameters, needed, config, world_size)
    precision = hardware.choose_precision(config, source=source.precision if source and config.resume else None)
    model = seeded(make, config.seed)
    if precision[0] == "64-true":
        model.double()  # before stored weights come in, which would be rounded otherwise
    _take_weights(model, source, config, data.tokenizer.vocab_size)
    first_step = source.step if source and config.resume else 0
    plan = plan_batches(
        config, vocab_size=objective.vocab_size, world_size=world_size, memory=_activation_memory(config)
    )
    total_flops = config.trainer.max_steps * objective.tokens_per_step(data, config, plan) * size.flops_per_token
    compiled = hardware.choose_compile(config, total_flops)
    lit = LitGPT(model, config, plan, objective, first_step)
    ended = source is not None and bool(config.resume) and has_ended(source, config)
    if source and ended:
        lit.score = objective.score(last_sums(source, data))
    best = best_file(source, config) if source and first_step else None
    record = RunRecord(
        folder,
        tokens_per_step=objective.tokens_per_step(data, config, plan),
        best_by=config.objective.best_by,
        flops_per_token=size.flops_per_token,
        peak_flops=_peak_flops(config, precision[0]),
        facts=_facts(config, data, size, source if first_step else None, best is not None),
        history=history_since(config, source if first_step else None),
        first_step=first_step,
    )
    samples = _samples(config, folder, data) if objective.generates else None
    identity = _identity(config, data)
    datamodule = Windows(config, objective, data, plan, first_step)
    plugins = load_plugins("callbacks", config.callbacks.plugins)
    callbacks = [
        record,
        *([samples] if samples else []),
        ConfusionMatrix(),
        Bundle(folder, identity, datamodule.batches_of),
        *plugins.values(),
        Checkpoints(folder / CHECKPOINTS, config.callbacks.checkpoint, identity, record, plugins),
        ProgressLine(console, record),
    ]
    if source and config.resume:
        callbacks.insert(0, RestoreOptimizer(source.optimizer))
        restore_callbacks(plugins, source)
    trainer = build_trainer(config, folder, plan, precision[0], callbacks, first_step)
    skip_empty_hooks(trainer, lit)
    _compile(lit, config, compiled[0])
    return Experiment(
        config=config,
        folder=folder,
        objective=objective,
        data=data,
        model=model,
        lit=lit,
        trainer=trainer,
        record=record,
        samples=samples,
        datamodule=datamodule,
        plan=plan,
        precision=precision,
        compiled=compiled,
        parameters=size.parameters,
        trainable=size.trainable,
        flops_per_token=size.flops_per_token,
        ended=ended,
        best=best,
    )


def _take_weights(model: nn.Module, source: ckpt.Checkpoint | None, config: Config, vocab_size: int) -> None:
    """Give a new model the source's weights; adapters come after these, or with them on resume."""
    if source and not config.resume:
        plain = merged(source.model, source.config, config.init_from)
        load_weights(model, initial_weights(plain, model, vocab_size), config.init_from)
    adapt(model, config.finetune, seed=config.seed)
    if source and config.resume:
        load_weights(model, source.model, config.resume)


def _compile(lit: LitGPT, config: Config, wanted: bool) -> None:
    """In place, so that names of parameters stay as they are.

    On a CPU, compiled code adds up an embedding's gradients in whatever order its threads come, unless it is
    told not to: then a run can be repeated exactly, as it can without compiling.
    """
    torch.use_deterministic_algorithms(wanted and hardware.accelerator_of(config) == "cpu", warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a tool for finding bugs, which costs time
    if wanted:
        torch.compiler.reset()  # an earlier job of this process, of other shapes, would make this one's dynamic
        lit.model.compile()
        lit.compiled = True


def build_trainer(
    config: Config,
    folder: Path,
    plan: BatchPlan,
    precision: str,
    callbacks: list[pl.Callback],
    first_step: int,
) -> pl.Trainer:
    """Lightning's Trainer, with what gptexp does itself switched off: checkpoints, bars, samplers, clipping."""
    quiet()
    settings, who = config.trainer, rank_environment.current()
    # Ranks are started by a launcher; without one this process is alone, also on a node of SLURM's.
    plugins: list[Any] = [TorchElasticEnvironment() if who else LightningEnvironment()]
    if double := precision == "64-true":  # by hand, because Lightning's sharding doesn't know it by name
        plugins.append(pl.plugins.DoublePrecision())
    accelerator = {"cuda": "gpu"}.get(hardware.accelerator_of(config), hardware.accelerator_of(config))
    loggers: list[Any] = [MetricsCSV(folder, config.objective.metrics, first_step)]
    if config.logger.tensorboard:
        loggers.append(tensorboard(folder, config.objective.metrics, first_step))
    loggers += load_plugins("logger", config.logger.plugins).values()
    return pl.Trainer(
        max_steps=settings.max_steps - first_step,
        max_epochs=-1,
        accelerator=accelerator,
        devices=hardware.processes_of(config),
        num_nodes=who.nodes if who else 1,
        strategy=_strategy(config, plan.world_size),
        plugins=plugins,
        precision=None if double else cast(Any, precision),
        accumulate_grad_batches=plan.accumulate,
        logger=loggers,
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


class RestoreOptimizer(pl.Callback):
    """Hands the stored optimizer state to the optimizer, once Lightning has made it."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def on_fit_start(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitGPT)
        load_named_optimizer_state(lit.model, trainer.optimizers[0], self.state)
        self.state = {}


def _strategy(config: Config, world_size: int) -> Any:
    strategy = config.trainer.strategy
    if strategy is Strategy.fsdp:
        from gptexp.training.fsdp import ShardedStrategy

        return ShardedStrategy(world_size)
    if strategy is Strategy.ddp or world_size > 1:
        return pl.strategies.DDPStrategy(static_graph=False, gradient_as_bucket_view=True)
    return "auto"


def quiet() -> None:
    """Lightning's tips and notices are about choices that gptexp makes for the user."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")


def _found_here(data: PreparedData, source: ckpt.Checkpoint | None) -> dict[str, str]:
    """What each process reads for itself and no setting says, as the ranks of a run compare it."""
    found = {"data fingerprint": data.fingerprint[:12], "hash of the code": code_sha256()[:12]}
    found |= {f"version of {package}": version for package, version in versions().items()}
    return found | ({"checkpoint": f"of step {source.step}, {_digest(source)}"} if source else {})


def _digest(source: ckpt.Checkpoint) -> str:
    """From a few values of each weight: enough to tell one checkpoint from another."""
    return hashlib.sha256(str([t.flatten()[:8].tolist() for t in source.model.values()]).encode()).hexdigest()[:12]


def _activation_memory(config: Config) -> int:
    """Bytes that a micro-batch's activations may take: a share of the memory of a GPU.

    On a CPU a fixed number, the same on every machine; more would only be more pages to fill with zeros first.
    """
    if hardware.accelerator_of(config) == "cuda":
        return int(0.4 * torch.cuda.get_device_properties(0).total_memory)
    return hardware.GIB


def _peak_flops(config: Config, precision: str) -> float | None:
    device = torch.cuda.get_device_name(0) if hardware.accelerator_of(config) == "cuda" else "cpu"
    return flops.peak_flops(device, precision)


def _facts(
    config: Config, data: PreparedData, size: Measured, source: ckpt.Checkpoint | None, has_best: bool
) -> dict[str, Any]:
    """What the record says besides what it measures. has_best: whether the best step's checkpoint is at hand."""
    facts: dict[str, Any] = {"parameters": size.parameters, "trainable_parameters": size.trainable}
    facts |= {"text_sha256": data.text_sha256, "settings": to_plain(config)}
    facts["bytes_per_token"] = data.train_text_bytes / data.train_tokens
    if source:
        best = source.metrics.get("best") if has_best else None
        facts |= {"best": best, "seconds": source.metrics.get("seconds", 0.0)}
    return facts


def _identity(config: Config, data: PreparedData) -> dict[str, Any]:
    return {
        "config": {name: group for name, group in to_plain(config).items() if name not in GROUPS},
        "tokenizer": data.tokenizer.state_dict(),
        "data": data.facts.as_plain(),
    }


def _samples(config: Config, folder: Path, data: PreparedData) -> TextSamples:
    val = data.val
    assert isinstance(val, TokenStore)  # the objective generates text
    tokens, _ = scored(val, data.tokenizer.token_bytes, data.tokenizer.eot)
    return TextSamples(folder, config.callbacks.samples, data.tokenizer, _prompt(config, data.tokenizer, val), tokens)


def _prompt(config: Config, tokenizer: Tokenizer, val: TokenStore) -> str:
    """The user's, or the first few characters of the validation text."""
    if prompt := config.callbacks.samples.prompt:
        try:
            tokenizer.encode(prompt)
        except ValueError as error:
            raise ValueError(f"callbacks.samples.prompt={prompt}: {error}") from None
        return prompt
    head = val.read(0, min(64, len(val)))
    return tokenizer.decode(head.tolist()).split("\n")[0][:24] or "\n"
