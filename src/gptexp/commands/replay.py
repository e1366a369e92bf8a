"""`gptexp replay`: repeat a step whose loss or gradient was not finite, and name the first module that failed."""

from __future__ import annotations

import argparse
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from gptexp.util.text import first_line, printable

SHAPES = {"tokens": "BT", "targets": "BT", "lengths": "B", "labels": "B"}  # of what a batch is made of


def run(arguments: argparse.Namespace) -> None:
    """Print what was found. Exit code 0: the breakdown was found again; 1: it was not."""
    bundle = read_bundle(arguments.bundle)
    print(printable(f"{bundle['what']} · seed {bundle['seed']} · precision {bundle['precision']}"))
    found = replay(bundle)
    healthy = "every output, loss and gradient is finite here: the cause lies in other hardware or kernels"
    print(printable(found or healthy))  # a bundle may be a stranger's
    sys.exit(0 if found else 1)


def read_bundle(path: Path) -> dict[str, Any]:
    """Open a bundle; no code in it can run.

    Raises:
        ValueError, FileNotFoundError: not a bundle, or damaged.
    """
    import torch

    from gptexp.runs.archive import is_format, open_archive, require_weights
    from gptexp.training.callbacks.bundle import FORMAT, VERSION

    bundle = open_archive(path)
    if not is_format(bundle, FORMAT, VERSION):
        raise ValueError(f"{path}: not a bundle of gptexp's, format {VERSION}")
    kinds = {"what": str, "step": int, "seed": int, "precision": str, "model": dict, "config": dict, "batches": list}
    kinds |= {"tokenizer": dict}
    for name, kind in kinds.items():
        if not isinstance(bundle.get(name), kind):
            raise ValueError(f"{path}: its `{name}` is {type(bundle.get(name)).__name__}, not {kind.__name__}")
    require_weights(path, bundle["model"])
    for batch in bundle["batches"]:
        whole = isinstance(batch, dict) and {"rank", "micro", "tokens"} <= batch.keys()
        if not whole or not all(type(batch[name]) is int and batch[name] >= 0 for name in ("rank", "micro")):
            raise ValueError(f"{path}: its `batches` are not those of a step")
        for name, axes in SHAPES.items():
            part = batch.get(name)
            if name in batch and (
                not isinstance(part, torch.Tensor) or part.dtype != torch.int64 or part.ndim != len(axes)
            ):
                raise ValueError(f"{path}: a batch's `{name}` are no whole numbers ({', '.join(axes)})")
    if not (0 <= bundle["seed"] < 2**63 and 1 <= bundle["step"] < 2**63):
        raise ValueError(f"{path}: its step and seed are out of range")
    return bundle


def replay(bundle: dict[str, Any]) -> str | None:
    """Run each forward pass of the step, and back, until something is no number; say what came first.

    The first module, in the order of computation, whose output is not finite; else the loss; else the first
    parameter whose gradient is not. None: all is finite.
    """
    from gptexp.models.kernels.fastest import fastest_kernels
    from gptexp.objectives.loading import load_trained
    from gptexp.runs.checkpoint import Checkpoint

    parts = {name: bundle[name] for name in ("step", "model", "config", "tokenizer")}
    facts = bundle.get("data", {})
    if not isinstance(facts, dict):
        raise ValueError("the bundle: its `data` is no group of facts")
    held = Checkpoint(**parts, optimizer={}, data=facts, metrics={})
    objective, model = load_trained(held, "the bundle", merge=False)
    model.train()
    with fastest_kernels(model):  # as in training
        return _first_fault(bundle, objective, model)


def _first_fault(bundle: dict[str, Any], objective: Any, model: Any) -> str | None:
    import torch

    from gptexp.util.seeds import dropout_seed, seed_generator

    if bundle["precision"] == "64-true":
        model.double()
    for parameter in model.parameters():
        if not torch.isfinite(parameter).all():
            return "the weights were no numbers before this step"
    seen: list[str] = []
    _listen(model, seen)
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
        loss.backward()
        for name, parameter in reversed(list(model.named_parameters())):  # as gradients come
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                return f"{where}: the loss is {float(loss):.4g}, but the gradient of {name} is not finite"
    squares = [parameter.grad.square().sum() for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.stack(squares).sum().sqrt()
    return None if torch.isfinite(norm) else f"every gradient is finite, but their norm is {float(norm)}"


def _loss(objective: Any, model: Any, batch: dict[str, Any]) -> Any:
    try:
        return objective.loss(model, _parts(batch, objective.parts))
    except (RuntimeError, IndexError, AssertionError) as error:  # ids beyond the vocabulary, shapes of two batches
        raise ValueError(f"the bundle: its batches don't fit its model ({first_line(error)})") from None


def _parts(batch: dict[str, Any], names: tuple[str, ...]) -> tuple[Any, ...]:
    if missing := [name for name in names if name not in batch]:
        raise ValueError(f"the bundle: a batch has no `{missing[0]}`, which its objective needs")
    return tuple(batch[name] for name in names)


def _listen(model: Any, seen: list[str]) -> None:
    """Have every module note the first output that is no number, with what went in."""
    import torch

    def note(name: str) -> Any:
        def hook(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
            if (
                isinstance(output, torch.Tensor) and output.ndim and not torch.isfinite(output).all()
            ):  # a number: the loss
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
    import torch

    kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    return torch.autocast("cpu", kinds[name]) if name in kinds else nullcontext()
