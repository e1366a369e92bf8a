"""The composition root of training: it builds tokenizer, data, model, callbacks and trainer from a Config."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from gptexp.config import Config, Recompute
from gptexp.config.conversion import to_plain
from gptexp.config.environment_variables import GROUPS
from gptexp.config.rules import require
from gptexp.data.batches import BatchPlan
from gptexp.data.prepared import PreparedData
from gptexp.machine import hardware
from gptexp.machine.lightning import pl
from gptexp.models import flops
from gptexp.models.build import Measured, build_on_meta, seeded
from gptexp.models.lora import adapt, merged
from gptexp.models.recompute import recompute_blocks
from gptexp.models.weights import load_weights
from gptexp.objectives import Objective
from gptexp.objectives.loading import initial_weights
from gptexp.runs import checkpoint as ckpt
from gptexp.runs.layout import CHECKPOINTS
from gptexp.runs.provenance import names_of_packages
from gptexp.training.basis import Basis, basis_of, cost_of, length_of, resumed_from_start
from gptexp.training.callbacks.bundle import Bundle
from gptexp.training.callbacks.checkpoints import Checkpoints
from gptexp.training.callbacks.confusion import ConfusionMatrix
from gptexp.training.callbacks.digests import Digests
from gptexp.training.callbacks.novelty import NoveltyMetrics
from gptexp.training.callbacks.prefixes import StorePrefixes
from gptexp.training.callbacks.progress import ProgressLine
from gptexp.training.callbacks.record import RunFacts, RunRecord
from gptexp.training.callbacks.samples import TextSamples, text_samples
from gptexp.training.continuing import Start
from gptexp.training.datamodule import Windows
from gptexp.training.length import Length
from gptexp.training.loop import skip_empty_hooks
from gptexp.training.measures import measures, optional_columns
from gptexp.training.module import LitGPT
from gptexp.training.plugins import load_plugins
from gptexp.training.prefixes import curve_until, find_prefixes
from gptexp.training.rates import peak_rates
from gptexp.training.sharing import Sharing
from gptexp.training.starting_point import (
    RestoreOptimizer,
    best_file,
    has_ended,
    history_since,
    last_sums,
    require_steps_left,
    restore_callbacks,
)
from gptexp.training.trainer import build_trainer


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
    novelty: NoveltyMetrics
    datamodule: Windows
    plan: BatchPlan
    precision: tuple[str, str]
    compiled: tuple[bool, str]
    parameters: int
    trainable: int
    flops_per_token: float
    ended: bool  # the resumed checkpoint is of the last step; only result.json is missing
    best: Path | None  # best.ckpt of the run that is resumed


def build_experiment(
    config: Config,
    folder: Path,
    *,
    console: Console,
    world_size: int = 1,
    resolve: Callable[[Config, Basis], Length] = length_of,
    sharing: Sharing | None = None,
    also: Iterable[pl.Callback] = (),
) -> Experiment:
    """Build the experiment. Settings are checked before anything large is allocated.

    resolve: returns the length of the run. sharing: which first steps other jobs of the sweep share; where one has
    stored them, this run continues from there. also: further callbacks.

    Raises:
        ValueError: the text, the batch, the memory or the source of the weights does not fit.
    """
    basis = basis_of(config, world_size)
    source, data, objective, size, plan = basis.source, basis.data, basis.objective, basis.size, basis.plan
    length = resolve(config, basis)
    max_steps = length.max_steps
    if basis.resumed and config.resume:
        require_steps_left(basis.resumed, config.resume, folder, length)
    needed = flops.training_bytes(size.parameters, size.trainable)
    needed += 4 * size.trainable if config.trainer.log_norms else 0  # a copy of the weights
    hardware.require_memory(size.parameters, needed, config, world_size)
    precision = hardware.choose_precision(config, source=source.precision if source and config.resume else None)
    cost = cost_of(config, basis)
    compiled = hardware.choose_compile(config, max_steps * cost.flops_per_step)
    samples, identity = text_samples(config, folder, data) if objective.generates else None, _identity(config, data)
    prefixes, peak = None, _peak_flops(config, precision[0])
    peaks = peak_rates(build_on_meta(basis.make, config.finetune, "model"), config)
    if sharing is not None:
        facts = {"precision": precision[0], "compiled": compiled[0], "layout": asdict(plan), "data": data.fingerprint}
        prefixes = find_prefixes(sharing, config, max_steps, source, facts)
    if prefixes is not None and not config.resume:
        start = Start(
            prefixes=prefixes,
            folder=folder,
            config=config,
            max_steps=max_steps,
            objective=objective,
            identity=identity,
            samples=samples,
            tokens_per_step=cost.tokens_per_step,
            peaks=peaks,
            mfu_per_rate=size.flops_per_token / (peak * world_size) if peak else None,
        )
        if start.run(console):
            config = replace(config, resume=str(folder))
            basis = resumed_from_start(config, basis)
    source, first_step = basis.source, basis.first_step
    model = seeded(basis.make, config.seed)
    if precision[0] == "64-true":
        model.double()  # before stored weights are loaded, which would otherwise be rounded
    _load_initial_weights(model, source, config, data.tokenizer.vocab_size)
    if config.trainer.recompute is Recompute.blocks:
        _recompute(model, config)
    lit = LitGPT(model, config, plan, objective, max_steps=max_steps, first_step=first_step)
    ended = basis.resumed is not None and has_ended(basis.resumed, max_steps)
    if source and ended:
        lit.score = objective.score(last_sums(source, data))
    best = best_file(source, config) if source and first_step else None
    record = RunRecord(
        folder,
        tokens_per_step=cost.tokens_per_step,
        best_by=config.objective.best_by,
        flops_per_token=size.flops_per_token,
        peak_flops=peak,
        peaks=peaks,
        facts=_facts(config, length, data, size, basis.resumed, best is not None),
        history=history_since(config, max_steps, basis.resumed),
        first_step=first_step,
    )
    curve = curve_until(basis.resumed, prefixes) if prefixes else None
    store = StorePrefixes(folder, prefixes, curve, record, samples, console) if prefixes and curve else None
    datamodule = Windows(config, objective, data, plan, first_step=first_step, max_steps=max_steps)
    plugins = load_plugins("callbacks", config.callbacks.plugins)
    novelty = NoveltyMetrics(config, objective, data, record)
    callbacks = [
        record,
        *([samples] if samples else []),
        novelty,
        ConfusionMatrix(),
        Bundle(folder, identity, datamodule.batches_of),
        *measures(config, datamodule),
        *([Digests(folder, record, datamodule.batches_of)] if config.trainer.digests else []),
        *plugins.values(),
        *([store] if store else []),
        Checkpoints(folder / CHECKPOINTS, config.callbacks.checkpoint, identity, record, plugins, store),
        ProgressLine(console, record),
        *also,
    ]
    if source and config.resume:
        callbacks.insert(0, RestoreOptimizer(source.optimizer))
        restore_callbacks(plugins, source)
    trainer = build_trainer(
        config,
        folder,
        plan,
        precision[0],
        callbacks,
        first_step=first_step,
        max_steps=max_steps,
        columns=optional_columns(config, model, peaks),
    )
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
        novelty=novelty,
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


def _load_initial_weights(model: nn.Module, source: ckpt.Checkpoint | None, config: Config, vocab_size: int) -> None:
    """Load the weights of the source and add adapters: after init_from's weights, before those of resume."""
    if source and not config.resume:
        weights = merged(source.model, source.config, config.init_from)
        load_weights(model, initial_weights(weights, model, vocab_size), config.init_from)
    adapt(model, config.finetune, seed=config.seed)
    if source and config.resume:
        load_weights(model, source.model, config.resume)


def _recompute(model: nn.Module, config: Config) -> None:
    """Recompute the activations of blocks in training; on an Apple GPU torch would draw other dropout masks."""
    remedy = "not supported on an Apple GPU; use trainer.recompute=none or trainer=cpu"
    require(hardware.accelerator_of(config) != "mps", "trainer.recompute", "blocks", remedy)
    recompute_blocks(model)


def _compile(lit: LitGPT, config: Config, wanted: bool) -> None:
    """Compile the model in place, so that parameter names do not change.

    On a CPU, compiled code sums the gradients of an embedding in an order that depends on thread timing, unless
    deterministic algorithms are requested. Without compilation the order is fixed.
    """
    if wanted or "torch._inductor" in sys.modules:  # an earlier job of this process may have compiled
        torch.use_deterministic_algorithms(wanted and hardware.accelerator_of(config) == "cpu", warn_only=True)
    else:
        torch.set_deterministic_debug_mode("default")  # does not import torch._inductor, which takes seconds
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # slow; for debugging
    if wanted:
        torch.compiler.reset()  # otherwise an earlier job of this process makes the shapes of this one dynamic
        lit.model.compile()
        lit.compiled = True


def _peak_flops(config: Config, precision: str) -> float | None:
    device = torch.cuda.get_device_name(0) if hardware.accelerator_of(config) == "cuda" else "cpu"
    return flops.peak_flops(device, precision)


def _facts(
    config: Config,
    length: Length,
    data: PreparedData,
    size: Measured,
    source: ckpt.Checkpoint | None,
    has_best: bool,
) -> RunFacts:
    """Return the facts of a run. has_best: whether the checkpoint of the best step exists."""
    return RunFacts(
        settings=to_plain(config),
        length=length,
        parameters=size.parameters,
        trainable_parameters=size.trainable,
        text_sha256=data.text_sha256,
        bytes_per_token=data.bytes_per_token,
        best=source.metrics.get("best") if source and has_best else None,
        seconds=float(source.metrics.get("seconds", 0.0)) if source else 0.0,
        inherited=int(source.metrics.get("inherited", 0)) if source else 0,
    )


def _identity(config: Config, data: PreparedData) -> dict[str, Any]:
    return {
        "config": {name: group for name, group in to_plain(config).items() if name not in GROUPS},
        "tokenizer": data.tokenizer.state_dict(),
        "data": data.facts.as_plain(),
        "packages": names_of_packages(config),
    }
