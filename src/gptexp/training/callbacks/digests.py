"""Digests of the tensors of a step, with which `gptexp diverge` finds where two runs part."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gptexp.machine.lightning import pl
from gptexp.runs.digests import DigestFile
from gptexp.training.callbacks.record import RunRecord
from gptexp.training.datamodule import Batches
from gptexp.training.module import LitGPT
from gptexp.training.optimizer_state import named_optimizer_state


class Digests(pl.Callback):
    """Writes digests.jsonl: the initial weights, and at each logged step the digest of each tensor.

    They are in this order: windows, learning rate, loss, gradients after clipping, parameters, optimizer. Replicas are
    equal, so rank 0 writes. batches: returns the batches of a step on all ranks.
    """

    def __init__(self, folder: Path, record: RunRecord, batches: Callable[[int], Batches]) -> None:
        self.folder, self.record, self.batches = folder, record, batches
        self.file: DigestFile | None = None

    def on_train_start(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitGPT)
        if trainer.is_global_zero:
            self.file = DigestFile(self.folder, lit.step)
            if not lit.step:
                self.file.append(0, {f"parameter {name}": digest(p) for name, p in lit.model.named_parameters()})

    def on_train_batch_end(
        self, trainer: pl.Trainer, lit: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(lit, LitGPT)
        ends = (batch_idx + 1) % lit.plan.accumulate == 0
        if self.file is not None and ends and lit.logs(lit.step):
            self.file.append(lit.step, dict(self._tensors(lit, trainer.optimizers[0])))

    def _tensors(self, lit: LitGPT, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, str]]:
        yield "windows", windows_digest(self.batches(lit.step))
        for name in ("lr", "train/loss"):
            yield name, digest(torch.tensor(self.record.last[name], dtype=torch.float64))
        yield from parameter_digests(lit.model, optimizer)


def parameter_digests(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, str]]:
    """Yield the digest of each gradient, then of each parameter and of each tensor of the optimizer, with its name."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            yield f"gradient of {name}", digest(parameter.grad)
    for name, parameter in model.named_parameters():
        yield f"parameter {name}", digest(parameter)
    for name, state in named_optimizer_state(model, optimizer).items():
        for key, value in state.items():
            yield f"{key} of {name} in the optimizer", digest(torch.as_tensor(value))


def digest(tensor: torch.Tensor) -> str:
    """Return 16 hexadecimal digits that identify the bytes, the shape and the type of a tensor."""
    whole = tensor.detach().cpu().contiguous()
    found = hashlib.blake2b(f"{tuple(whole.shape)} {whole.dtype}".encode(), digest_size=8)
    found.update(whole.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def windows_digest(batches: Batches) -> str:
    """Return the digest of the windows of a step; it does not depend on the number of processes or micro-batches."""
    windows = []
    for batch in batches:
        parts = [part for part in batch.values() if isinstance(part, torch.Tensor)]
        windows += [b"".join(part[i].numpy().tobytes() for part in parts) for i in range(len(parts[0]))]
    return hashlib.blake2b(b"\0".join(sorted(windows)), digest_size=8).hexdigest()
