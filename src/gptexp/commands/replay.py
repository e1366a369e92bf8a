"""`gptexp replay`: repeat a step whose loss or gradient was not finite, and name the first module that failed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from gptexp.models.kernels.fastest import fastest_kernels
from gptexp.objectives import Objective
from gptexp.objectives.loading import load_trained
from gptexp.runs.archive import is_format, open_archive, require_weights
from gptexp.runs.checkpoint import Checkpoint
from gptexp.training.callbacks.bundle import FORMAT, VERSION, BundleContent
from gptexp.util.seeds import dropout_seed, seed_generator
from gptexp.util.text import first_line, printable

SHAPES = {"tokens": "BT", "targets": "BT", "lengths": "B", "labels": "B"}  # axes of the parts of a batch


def run(arguments: argparse.Namespace) -> None:
    """Print the cause. Exit code 0: the failure was reproduced; 1: everything is finite."""
    bundle = read_bundle(arguments.bundle)
    print(printable(f"{bundle['what']} · seed {bundle['seed']} · precision {bundle['precision']}"))
    found = replay(bundle)
    finite = "every output, loss and gradient is finite on this machine: the cause is in other hardware or kernels"
    print(printable(found or finite))  # the text of an untrusted bundle may contain control characters
    sys.exit(0 if found else 1)


def read_bundle(path: Path) -> BundleContent:
    """Open a bundle. No code in it is executed.

    Raises:
        ValueError: not a bundle, or damaged.
        FileNotFoundError: no such file.
    """
    bundle = open_archive(path)
    if not is_format(bundle, FORMAT, VERSION):
        raise ValueError(f"{path}: not a bundle of gptexp in format {VERSION}")
    kinds = {"what": str, "step": int, "seed": int, "precision": str, "model": dict, "config": dict, "batches": list}
    kinds |= {"tokenizer": dict}
    for name, kind in kinds.items():
        if not isinstance(bundle.get(name), kind):
            raise ValueError(f"{path}: `{name}` is {type(bundle.get(name)).__name__}, not {kind.__name__}")
    if not isinstance(bundle.setdefault("data", {}), dict):
        raise ValueError(f"{path}: `data` is {type(bundle['data']).__name__}, not dict")
    require_weights(path, bundle["model"])
    for batch in bundle["batches"]:
        complete = isinstance(batch, dict) and {"rank", "micro", "tokens"} <= batch.keys()
        if not complete or not all(type(batch[name]) is int and batch[name] >= 0 for name in ("rank", "micro")):
            raise ValueError(f"{path}: `batches` does not have the batches of a step")
        for name, axes in SHAPES.items():
            part = batch.get(name)
            if name in batch and (
                not isinstance(part, torch.Tensor) or part.dtype != torch.int64 or part.ndim != len(axes)
            ):
                raise ValueError(f"{path}: `{name}` of a batch must be whole numbers of shape ({', '.join(axes)})")
    if not (0 <= bundle["seed"] < 2**63 and 1 <= bundle["step"] < 2**63):
        raise ValueError(f"{path}: `step` or `seed` is out of range")
    return cast(BundleContent, bundle)


def replay(bundle: BundleContent) -> str | None:
    """Repeat each forward and backward pass of the step, and describe the first value that is not finite.

    It is the output of a module, in the order of computation; else the loss; else the gradient of a parameter.
    None: everything is finite.
    """
    checkpoint = Checkpoint(
        step=bundle["step"],
        model=bundle["model"],
        config=bundle["config"],
        tokenizer=bundle["tokenizer"],
        optimizer={},
        data=bundle["data"],
        metrics={},
    )
    objective, model = load_trained(checkpoint, "the bundle", merge=False)
    model.train()
    with fastest_kernels(model):  # as in training
        return _first_fault(bundle, objective, model)


def _first_fault(bundle: BundleContent, objective: Objective[Any], model: nn.Module) -> str | None:
    if bundle["precision"] == "64-true":
        model.double()
    for parameter in model.parameters():
        if not torch.isfinite(parameter).all():
            return "the weights were not finite before this step"
    seen: list[str] = []
    _add_hooks(model, seen)
    for batch in bundle["batches"]:
        drawn = dropout_seed(bundle["seed"], bundle["step"] - 1, batch["rank"], batch["micro"])
        seed_generator(torch.default_generator, drawn)
        where = f"micro-batch {batch['micro']} of rank {batch['rank']}"
        with _precision(bundle["precision"]):
            loss = _loss(objective, model, batch)
        if seen:
            return f"{where}: {seen[0]}"
        if not torch.isfinite(loss):
            return f"{where}: every module's output is finite, but the loss is {float(loss)}"
        torch.autograd.backward(loss)
        for name, parameter in reversed(list(model.named_parameters())):  # the order of the backward pass
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                return f"{where}: the loss is {float(loss):.4g}, but the gradient of {name} is not finite"
    squares = [parameter.grad.square().sum() for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.stack(squares).sum().sqrt()
    return None if torch.isfinite(norm) else f"every gradient is finite, but their norm is {float(norm)}"


def _loss(objective: Objective[Any], model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    try:
        return objective.loss(model, _parts(batch, objective.parts))
    except (RuntimeError, IndexError, AssertionError) as error:  # ids beyond the vocabulary, shapes of two batches
        raise ValueError(f"the bundle: the batches do not fit the model ({first_line(error)})") from None


def _parts(batch: dict[str, Any], names: tuple[str, ...]) -> tuple[Any, ...]:
    if missing := [name for name in names if name not in batch]:
        raise ValueError(f"the bundle: a batch has no `{missing[0]}`, which its objective needs")
    return tuple(batch[name] for name in names)


def _add_hooks(model: nn.Module, seen: list[str]) -> None:
    """Have every module describe an output that is not finite, and its input, in `seen`."""

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            tensor = isinstance(output, torch.Tensor) and output.ndim > 0  # not the loss
            if tensor and not torch.isfinite(output).all():
                bad = int((~torch.isfinite(output)).sum())
                fed = inputs[0] if inputs and isinstance(inputs[0], torch.Tensor) else None
                size = f"; its input is at most {float(fed.detach().abs().max()):.4g}" if fed is not None else ""
                seen.append(
                    f"{name} ({type(module).__name__}) is the first module with an output that is not finite: "
                    f"{bad:,} of {output.numel():,} values{size}"
                )

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(note(name or "the model"))


def _precision(name: str) -> AbstractContextManager[Any]:
    kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    return torch.autocast("cpu", kinds[name]) if name in kinds else nullcontext()
