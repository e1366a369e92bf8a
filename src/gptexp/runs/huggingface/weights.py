"""Weights of a Hugging Face folder, converted to gptexp's and back.

OpenAI's code computes the linear layers of GPT-2 as convolutions of width 1 with matrices (in, out); torch's nn.Linear
has (out, in). The names of the parameters are the same. For Llama see llama_weights.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch

from gptexp.config.conversion import from_plain
from gptexp.config.model import GPTConfig
from gptexp.runs import huggingface
from gptexp.runs.archive import open_archive, require_dense
from gptexp.runs.checkpoint import Checkpoint
from gptexp.runs.huggingface import llama_weights
from gptexp.runs.huggingface.config import CONFIG, GPT2, form_of
from gptexp.util.files import LFS_POINTER, require_no_pointer

CONV1D = re.compile(r"transformer\.h\.\d+\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight")
# Buffers that old versions of transformers stored: masks, and the frequencies of RoPE.
BUFFER = re.compile(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)|model\.layers\.\d+\..*rotary_emb\.inv_freq")
HEAD, EMBEDDING = "lm_head.weight", "transformer.wte.weight"

Weights = dict[str, torch.Tensor]


def load_folder(folder: Path) -> Checkpoint:
    """Return a Hugging Face folder as the checkpoint of a run at step 0.

    Raises:
        ValueError: a file is damaged or has other content; loading it executed no code.
    """
    settings, tokenizer, vocab_size = huggingface.settings_and_tokenizer(folder)
    model: GPTConfig = from_plain("model", settings["model"])
    is_gpt2 = form_of(model) is GPT2
    prefix, embedding = ("transformer.", EMBEDDING) if is_gpt2 else ("model.", llama_weights.EMBEDDING)
    stored: Weights = {}
    for path in huggingface.weight_files(folder):
        for name, tensor in _stored(path):
            stored |= _checked(path, name, tensor, prefix)
    if model.tie_weights and (head := stored.pop(HEAD, None)) is not None:
        _require_same_head(folder, head, embedding, stored.get(embedding))
    if is_gpt2:
        weights = {name: transposed(name, stored.pop(name)) for name in list(stored)}  # never twice in memory
    else:
        weights = llama_weights.imported(stored, model, vocab_size, folder)
    return Checkpoint(step=0, model=weights, optimizer={}, config=settings, tokenizer=tokenizer, data={}, metrics={})


def _require_same_head(folder: Path, head: torch.Tensor, name: str, embedding: torch.Tensor | None) -> None:
    """Refuse a stored output layer that differs from the embedding it is tied to, because it would be ignored."""
    if embedding is not None and not torch.equal(head, embedding):
        raise ValueError(
            f"{folder}: {HEAD} differs from {name}, but {CONFIG} ties them; if the model has a "
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


def _checked(path: Path, name: str, stored: torch.Tensor, prefix: str) -> Weights:
    """Return a weight in float32, with the prefix that models without an output layer leave out; {} for a buffer."""
    require_dense(path, name, stored)
    name = name if name.startswith((prefix, "lm_head.")) else f"{prefix}{name}"
    if BUFFER.fullmatch(name):
        return {}
    if not stored.is_floating_point():
        raise ValueError(f"{path}: {name} contains integers")
    return {name: stored.detach().float()}


def transposed(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return the transposed matrix if it belongs to a linear layer; the conversion is its own inverse."""
    return tensor.t().contiguous() if CONV1D.fullmatch(name) and tensor.ndim == 2 else tensor.contiguous()


def exported(weights: Weights, config: GPTConfig) -> Weights:
    """Return the weights as transformers stores them for the form of the model.

    A GPT-2 gets zeros for the biases that the model lacks. The multipliers of muP become part of the weights.
    """
    if form_of(config) is not GPT2:
        return llama_weights.exported(weights, config)
    stored: Weights = {}
    for name, tensor in weights.items():
        module, _, end = name.rpartition(".")
        if module.endswith(".ln_f"):
            tensor = tensor / config.width_ratio
        elif module.endswith(".attn.c_attn"):
            queries, rest = tensor[: config.n_embd], tensor[config.n_embd :]
            tensor = torch.cat((queries * config.query_scale, rest))
        stored[name] = transposed(name, tensor)
        if end == "weight" and not module.endswith(("wte", "wpe", "lm_head")) and f"{module}.bias" not in weights:
            stored[f"{module}.bias"] = tensor.new_zeros(len(tensor))
    return stored
