"""What a run is built on, before anything large is allocated: source, data, objective, model size and batch plan."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gptexp.config import Config, Exhausted, MixtureConfig
from gptexp.data.batches import BatchPlan, plan_batches
from gptexp.data.mixture import MixtureData
from gptexp.data.prepared import PreparedData
from gptexp.machine import hardware, ranks
from gptexp.models.build import Make, Measured, measure_model
from gptexp.objectives import Objective, implementation
from gptexp.objectives.mixture import Mixed
from gptexp.runs import checkpoint as ckpt
from gptexp.runs.code_hash import code_sha256
from gptexp.runs.provenance import names_of_packages, versions
from gptexp.tokenizers import load_tokenizer
from gptexp.training.length import Cost, Length, affordable, recorded, resolved
from gptexp.training.starting_point import open_source, require_same_data


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """The checked material of a run. make: builds the model. first_step: the step from which a run is resumed, or 0."""

    source: ckpt.Checkpoint | None
    data: PreparedData
    objective: Objective[Any]
    make: Make
    size: Measured
    plan: BatchPlan
    first_step: int

    @property
    def resumed(self) -> ckpt.Checkpoint | None:
        """The checkpoint that is resumed; None for a run from the start."""
        return self.source if self.first_step else None


def basis_of(config: Config, world_size: int = 1) -> Basis:
    """Return the basis of a run, after preparing the data if they are not in the cache.

    Raises:
        ValueError: the text, the batch or the source of the weights does not fit.
    """
    source = open_source(config)
    tokenizer = load_tokenizer(source.tokenizer) if source else config.tokenizer
    kind = implementation(config.objective.kind)
    with ranks.first_then_others(ranks.PREPARED):
        data = kind.prepare(config, tokenizer, Path(config.paths.cache))
    ranks.require_alike(_found_here(config, data, source))
    require_same_data(config, source, data)
    objective: Objective[Any] = kind(config.objective, data.tokenizer, data.facts)
    if isinstance(data, MixtureData):
        objective = Mixed(objective, data)
    make = partial(objective.make_model, config.model)
    return Basis(
        source=source,
        data=data,
        objective=objective,
        make=make,
        size=measure_model(make, config.model.block_size, config.finetune),
        plan=plan_batches(
            config, vocab_size=objective.vocab_size, world_size=world_size, memory=hardware.activation_memory(config)
        ),
        first_step=source.step if source and config.resume else 0,
    )


def resumed_from_start(config: Config, basis: Basis) -> Basis:
    """Return the basis of a run that resumes the checkpoint with which it was started."""
    source = open_source(config)
    assert source is not None
    return replace(basis, source=source, first_step=source.step)


def cost_of(config: Config, basis: Basis) -> Cost:
    """Return what a step of the run costs."""
    return Cost(
        tokens_per_step=basis.objective.tokens_per_step(basis.data, config, basis.plan),
        flops_per_token=basis.size.flops_per_token,
        trainable=basis.size.trainable,
    )


def length_of(
    config: Config, basis: Basis, *, steps: int | None = None, measure: Callable[[Basis], int] | None = None
) -> Length:
    """Return the length of a run: what the caller has resolved, else that of the run that it resumes, else a new one.

    measure: returns the number of steps for trainer.max_time.

    Raises:
        ValueError: a length that this model or schedule cannot have.
    """
    if steps is None and basis.resumed:
        steps = recorded(config, basis.resumed.config, basis.resumed.history)
    if steps is not None:
        length = Length(asked=config.trainer.length, max_steps=steps)
    elif measure is not None and config.trainer.max_time is not None:
        length = resolved(config, measure(basis))
    else:
        length = resolved(config, affordable(config, cost_of(config, basis)))
    return _until_exhausted(config, basis, length)


def _until_exhausted(config: Config, basis: Basis, length: Length) -> Length:
    """Return the length, or with data.exhausted=stop the steps before the first that would repeat a window."""
    data = basis.data
    if not (isinstance(config.data, MixtureConfig) and isinstance(data, MixtureData)):
        return length
    if config.data.exhausted is Exhausted.repeat:
        return length
    samples, number = data.order(config.model.block_size, config.seed).first_repeated()
    steps, part = samples // basis.plan.windows, list(data.parts)[number]
    if steps >= length.max_steps:
        return length
    if not steps:
        raise ValueError(
            f"data.exhausted=stop: data.parts.{part} has too few windows for the first step; give it more text or a "
            "smaller weight, or use data.exhausted=repeat"
        )
    config.schedule.require_warmup(steps, f"the {steps} steps until data.parts.{part} is exhausted")
    return replace(length, max_steps=steps, exhausts=part)


def _found_here(config: Config, data: PreparedData, source: ckpt.Checkpoint | None) -> dict[str, str]:
    """Return what each rank finds on its machine; all ranks of a run must find the same."""
    found = {"data fingerprint": data.fingerprint[:12], "hash of the code": str(code_sha256(config))[:12]}
    found |= {f"version of {name}": version for name, version in versions(names_of_packages(config).values()).items()}
    return found | ({"checkpoint": f"of step {source.step}, {_digest(source)}"} if source else {})


def _digest(source: ckpt.Checkpoint) -> str:
    """Return a hash of a few values of each weight, to tell one checkpoint from another."""
    return hashlib.sha256(str([t.flatten()[:8].tolist() for t in source.model.values()]).encode()).hexdigest()[:12]
