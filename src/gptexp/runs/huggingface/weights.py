"""Conversion between gptexp's weights and those of Hugging Face's GPT-2.

OpenAI's code computes linear layers as convolutions of width 1 with matrices (in, out); torch's nn.Linear has
(out, in). The names of the parameters are the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch

from gptexp.config.model import GPTConfig
from gptexp.runs import huggingface
from gptexp.runs.archive import open_archive, require_dense
from gptexp.runs.checkpoint import Checkpoint
from gptexp.runs.huggingface.config import CONFIG
from gptexp.util.files import LFS_POINTER, require_no_pointer

CONV1D = re.compile(r"transformer\.h\.\d+\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight")
MASK = re.compile(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)")  # buffers that old versions stored
HEAD, EMBEDDING = "lm_head.weight", "transformer.wte.weight"

Weights = dict[str, torch.Tensor]


def load_folder(folder: Path) -> Checkpoint:
    """Return a Hugging Face folder as the checkpoint of a run at step 0.

    Raises:
        ValueError: a file is damaged or has other content; loading it executed no code.
    """
    settings, tokenizer = huggingface.settings_and_tokenizer(folder)
    weights: Weights = {}
    tied, heads = settings["model"]["tie_weights"], []
    for path in huggingface.weight_files(folder):
        for name, tensor in _stored(path):
            weights |= imported(name, tensor, path, tied=tied)
            heads += [(path, tensor)] if tied and name == HEAD else []
    for path, head in heads:
        _require_same_head(path, head, weights.get(EMBEDDING))
    return Checkpoint(step=0, model=weights, optimizer={}, config=settings, tokenizer=tokenizer, data={}, metrics={})


def _require_same_head(path: Path, head: torch.Tensor, embedding: torch.Tensor | None) -> None:
    """Refuse a stored output layer that differs from the embedding it is tied to, because it would be ignored."""
    if embedding is not None and not torch.equal(head.detach().float(), embedding):
        raise ValueError(
            f"{path}: {HEAD} differs from {EMBEDDING}, but {CONFIG} ties them; if the model has a "
            f'separate output layer, write "tie_word_embeddings": false into {CONFIG}'
        )


def _stored(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, tensor) of a file."""
    if path.suffix != ".safetensors":
        yield from open_archive(path, legacy=True).items()
        return
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as start:
        require_no_pointer(path, start.read(len(LFS_POINTER)))
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                yield name, file.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a complete safetensors file ({error})") from None


def imported(name: str, stored: torch.Tensor, path: Path, *, tied: bool) -> Weights:
    """Return one of Hugging Face's weights with gptexp's name and shape, in float32; {} if gptexp does not store it.

    GPT2Model stores names without `transformer.`, GPT2LMHeadModel with it.
    """
    require_dense(path, name, stored)
    name = name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"
    if MASK.fullmatch(name) or (tied and name == HEAD):
        return {}
    if not stored.is_floating_point():
        raise ValueError(f"{path}: {name} contains integers")
    return {name: transposed(name, stored.detach().float())}


def transposed(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return the transposed matrix if it belongs to a linear layer; the conversion is its own inverse."""
    return tensor.t().contiguous() if CONV1D.fullmatch(name) and tensor.ndim == 2 else tensor.contiguous()


def exported(weights: Weights, config: GPTConfig) -> Weights:
    """Return the weights as GPT2LMHeadModel stores them, with zeros for the biases that a model lacks.

    The multipliers of muP, which GPT-2 lacks, become part of the weights.
    """
    weights = {name: _with_multiplier(name, tensor, config) for name, tensor in weights.items()}
    unbiased = [name for name in weights if _has_bias(name) and f"{_module(name)}.bias" not in weights]
    zeros = {f"{_module(name)}.bias": weights[name].new_zeros(len(weights[name])) for name in unbiased}
    return {name: transposed(name, tensor) for name, tensor in {**weights, **zeros}.items()}


def _with_multiplier(name: str, tensor: torch.Tensor, config: GPTConfig) -> torch.Tensor:
    if name.startswith("transformer.ln_f.") and config.width_ratio != 1:
        return tensor / config.width_ratio
    if ".attn.c_attn." in name and config.query_scale != 1:
        queries, rest = tensor[: config.n_embd], tensor[config.n_embd :]
        return torch.cat((queries * config.query_scale, rest))
    return tensor


def _has_bias(name: str) -> bool:
    return name.endswith(".weight") and not name.endswith(("wte.weight", "wpe.weight", HEAD))


def _module(name: str) -> str:
    return name.rpartition(".")[0]
