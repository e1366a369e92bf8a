"""A plug-in that records the output of each module, with which `gptexp diverge` names the module that differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from gptexp.machine.lightning import pl
from gptexp.training.callbacks.digests import digest, parameter_digests
from gptexp.training.module import LitGPT
from gptexp.util.files import open_append

OUTPUTS = "outputs.jsonl"
SAMPLE = 64  # values of a tensor that are stored, to say by how much two tensors differ


class Enough(Exception):
    """The last step of interest is recorded."""


class Outputs(pl.Callback):
    """Writes outputs.jsonl for the steps `first` to `last`, then ends the training with `Enough`.

    A line for each output of a module in the order of computation, for the gradient of each output in the backward
    pass, and for each gradient, parameter and tensor of the optimizer after the step.
    """

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.path = Path()
        self.micro = 0

    def on_train_start(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitGPT)
        self.path = Path(trainer.default_root_dir) / OUTPUTS
        for name, module in lit.model.named_modules():
            module.register_forward_hook(self._hook(lit, name or "the model"))

    def _hook(self, lit: LitGPT, name: str) -> Any:
        def forward(module: torch.nn.Module, _: Any, output: Any) -> None:
            tensor = next((part for part in (output if isinstance(output, tuple) else (output,))), None)
            if not (isinstance(tensor, torch.Tensor) and module.training and self.first <= lit.step + 1 <= self.last):
                return
            what = f"{name} ({type(module).__name__})"
            self._write(lit.step + 1, f"output of {what}", tensor)
            if tensor.requires_grad:
                step = lit.step + 1
                tensor.register_hook(lambda grad: self._write(step, f"gradient of the output of {what}", grad))

        return forward

    def on_train_batch_end(
        self, trainer: pl.Trainer, lit: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(lit, LitGPT)
        self.micro = (batch_idx + 1) % lit.plan.accumulate
        if self.micro or lit.step < self.first:
            return
        for name, found in parameter_digests(lit.model, trainer.optimizers[0]):
            self._append({"step": lit.step, "what": name, "digest": found})
        if lit.step >= self.last:
            raise Enough

    def _write(self, step: int, what: str, tensor: torch.Tensor) -> None:
        values = tensor.detach().reshape(-1)[:: max(1, tensor.numel() // SAMPLE)].double().tolist()
        found = {"step": step, "micro": self.micro, "what": what, "digest": digest(tensor)}
        self._append({**found, "sample": [str(value) for value in values]})

    def _append(self, line: dict[str, Any]) -> None:
        with open_append(self.path) as file:
            file.write(json.dumps(line) + "\n")
