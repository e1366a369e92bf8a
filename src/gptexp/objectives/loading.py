"""From a checkpoint to its model, objective and tokenizer (without Lightning, so that `generate` starts quickly)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from gptexp.config.conversion import from_plain
from gptexp.config.finetune import FinetuneConfig
from gptexp.config.fingerprint import completed
from gptexp.config.kinds import kinds_in
from gptexp.config.objective import ObjectiveConfig
from gptexp.machine import hardware
from gptexp.models.build import build_on_meta, require_stored
from gptexp.models.classifier import HEAD
from gptexp.models.lora import merged
from gptexp.models.placement import Placement, place
from gptexp.models.weights import adopt_weights
from gptexp.objectives import Objective, implementation
from gptexp.runs import checkpoint as ckpt
from gptexp.runs.finding import find_checkpoint
from gptexp.runs.opening import open_checkpoint
from gptexp.tokenizers import Tokenizer, load_tokenizer

HEADS = (HEAD, "lm_head.")
TABLES = ("wte.weight", "lm_head.weight")  # ends of the names of the tensors with a row for each token


class Opened(NamedTuple):
    """A language model on the device where it computes. name: as the user gave it. path: of the checkpoint."""

    name: str
    path: Path
    checkpoint: ckpt.Checkpoint
    model: nn.Module
    tokenizer: Tokenizer
    placement: Placement

    @property
    def block_size(self) -> int:
        return int(self.checkpoint.config["model"]["block_size"])


def open_run(run: str, logs: Path, device: str, precision: str) -> Opened:
    """Open a run as `find_checkpoint`, `open_checkpoint` and `load_model` do, and move its weights.

    device, precision: values of the options of these names.

    Raises:
        ValueError: also if the machine lacks the device, or the device lacks memory or the precision.
    """
    found, path = hardware.find_device(device), find_checkpoint(run, logs)
    checkpoint = open_checkpoint(path)
    model, tokenizer = load_model(checkpoint, path)
    return Opened(run, path, checkpoint, model, tokenizer, place(model, found, precision))


def load_model(checkpoint: ckpt.Checkpoint, source: object) -> tuple[nn.Module, Tokenizer]:
    """Return the language model and the tokenizer of a checkpoint, which is all that generating text needs.

    Raises:
        ValueError: its settings, tokenizer or weights do not match, or its objective does not generate text.
    """
    kind = objective_of(checkpoint).kind
    if not implementation(kind).generates:
        raise ValueError(f"{source}: was trained with objective={kind}: {implementation(kind).why_no_text}")
    objective, model = load_trained(checkpoint, source)
    return model, objective.tokenizer


def objective_of(checkpoint: ckpt.Checkpoint) -> ObjectiveConfig:
    """Return the objective's settings of a checkpoint; a checkpoint without them is a language model."""
    stored = completed(checkpoint.config)
    checkpoint.require_installed("the checkpoint", objective=kinds_in(stored).get("objective"))
    settings: ObjectiveConfig = from_plain("objective", stored["objective"])
    return settings


def load_trained(
    checkpoint: ckpt.Checkpoint, source: object, *, merge: bool = True
) -> tuple[Objective[Any], nn.Module]:
    """Return the objective and the model of a checkpoint with any objective.

    merge: add adapters to their weights, so that the model has no adapters; False keeps them separate.

    Raises:
        ValueError: its settings, tokenizer or weights do not match.
    """
    kinds = {**kinds_in(checkpoint.config), "tokenizer": checkpoint.tokenizer.get("kind")}
    checkpoint.require_installed(source, **{group: kinds.get(group) for group in ("model", "tokenizer", "objective")})
    config, settings = from_plain("model", checkpoint.config.get("model")), objective_of(checkpoint)
    kind = implementation(settings.kind)
    try:
        objective = kind(settings, load_tokenizer(checkpoint.tokenizer), kind.facts_type.from_plain(checkpoint.data))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    require_stored(config, checkpoint.model, source)
    finetune = FinetuneConfig() if merge else from_plain("finetune", completed(checkpoint.config)["finetune"])
    # No memory is allocated for sizes that an untrusted file asks for.
    model = build_on_meta(partial(objective.make_model, config), finetune, source)
    stored = merged(checkpoint.model, checkpoint.config, source) if merge else checkpoint.model
    adopt_weights(model, stored, source)
    return objective, model.eval()


def initial_weights(stored: dict[str, torch.Tensor], model: nn.Module, tokens: int) -> dict[str, torch.Tensor]:
    """Return the weights of a run for `init_from` in a model whose objective may have another head.

    The weights of the transformer are kept. A head that the model does not have is dropped. A classifier's head keeps
    its new weights, because its labels differ. The mask token's row is dropped if the model has only `tokens` rows.
    """
    parameters = dict(model.named_parameters())
    weights = {name: tensor for name, tensor in stored.items() if name in parameters or not name.startswith(HEADS)}
    weights |= {name: parameter.detach() for name, parameter in parameters.items() if name.startswith(HEAD)}
    for name in [name for name in weights if name.endswith(TABLES) and name in parameters]:
        if len(weights[name]) == tokens + 1 > len(parameters[name]):
            weights[name] = weights[name][:tokens]
    return weights
