"""Hugging Face's names and shapes of GPT-2's weights, in and out.

OpenAI's code computed its linear layers as convolutions of width 1, whose matrices lie (in, out); those of
torch's nn.Linear lie (out, in). All else is the same: our parameters bear GPT-2's own names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch

from gptexp.runs import huggingface
from gptexp.runs.archive import open_plain, require_dense
from gptexp.runs.checkpoint import Checkpoint
from gptexp.util.files import POINTER, require_no_pointer

CONV1D = re.compile(r"transformer\.h\.\d+\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight")
MASK = re.compile(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)")  # buffers that old versions stored
HEAD, EMBEDDING = "lm_head.weight", "transformer.wte.weight"

Weights = dict[str, torch.Tensor]


def load_folder(folder: Path) -> Checkpoint:
    """A folder in Hugging Face's form as the checkpoint of a run that has taken no step.

    Raises:
        ValueError: a file isn't what it should be; nothing but tensors was made of it.
    """
    settings, tokenizer = huggingface.read_run(folder)
    weights: Weights = {}
    tied, heads = settings["model"]["tie_weights"], []
    for path in huggingface.weight_files(folder):
        for name, tensor in _stored(path):
            weights |= own(name, tensor, path, tied=tied)
            heads += [(path, tensor)] if tied and name == HEAD else []
    for path, head in heads:
        _require_same_head(path, head, weights.get(EMBEDDING))
    return Checkpoint(step=0, model=weights, optimizer={}, config=settings, tokenizer=tokenizer, data={}, metrics={})


def _require_same_head(path: Path, head: torch.Tensor, embedding: torch.Tensor | None) -> None:
    """A stored output layer that is to be tied must be what it is tied to, or it would be dropped unseen."""
    if embedding is not None and not torch.equal(head.detach().float(), embedding):
        raise ValueError(
            f"{path}: {HEAD} differs from {EMBEDDING}, but by {huggingface.CONFIG} they are one; if the model has an "
            f'output layer of its own, write "tie_word_embeddings": false into {huggingface.CONFIG}'
        )


def _stored(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of a file, one after the other."""
    if path.suffix != ".safetensors":
        yield from open_plain(path, legacy=True).items()
        return
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as start:
        require_no_pointer(path, start.read(len(POINTER)))
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                yield name, file.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error})") from None


def own(name: str, stored: torch.Tensor, path: Path, *, tied: bool) -> Weights:
    """One of Hugging Face's weights as ours, in float32; nothing where we don't keep it.

    GPT2Model stores its names without `transformer.`, GPT2LMHeadModel with it.
    """
    require_dense(path, name, stored)
    name = name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"
    if MASK.fullmatch(name) or (tied and name == HEAD):
        return {}
    if not stored.is_floating_point():
        raise ValueError(f"{path}: {name} holds whole numbers")
    return {name: turned(name, stored.detach().float())}


def turned(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The matrix of a linear layer with rows and columns exchanged, from Hugging Face's form or to it."""
    return tensor.t().contiguous() if CONV1D.fullmatch(name) and tensor.ndim == 2 else tensor.contiguous()


def theirs(weights: Weights) -> Weights:
    """Our weights as GPT2LMHeadModel stores them; biases that a model does without are zero there."""
    without = [name for name in weights if _has_bias(name) and f"{_module(name)}.bias" not in weights]
    zeros = {f"{_module(name)}.bias": weights[name].new_zeros(len(weights[name])) for name in without}
    return {name: turned(name, tensor) for name, tensor in {**weights, **zeros}.items()}


def _has_bias(name: str) -> bool:
    return name.endswith(".weight") and not name.endswith(("wte.weight", "wpe.weight", HEAD))


def _module(name: str) -> str:
    return name.rpartition(".")[0]
