"""A model as one file in the format of llama.cpp: weights, settings and tokenizer, written by the gguf package.

It is made from the weights and the config.json that transformers would get. llama.cpp's `llama` rotates neighbouring
pairs of columns where transformers rotates halves, so the rows of queries and keys are permuted; its `qwen3` rotates
halves. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gptexp.config.model import Activation, GPTConfig
from gptexp.runs.huggingface.weights import transposed
from gptexp.tokenizers import Tokenizer
from gptexp.tokenizers.byte_level import token_names
from gptexp.util.files import atomic_path

if TYPE_CHECKING:
    from gguf import GGUFWriter

FILE = "model.gguf"
BPE = ("bpe", "gpt2", "files")  # kinds of tokenizers that llama.cpp can have
TEXT, SPECIAL, UNUSED = 1, 3, 5  # types of tokens

Plain = dict[str, Any]


def require_supported(config: GPTConfig, tokenizer: Tokenizer) -> None:
    """Refuse what llama.cpp lacks, though transformers has it.

    Raises:
        ValueError: the message names the setting.
    """
    if config.activation not in (Activation.gelu_tanh, Activation.swiglu):
        only = "in llama.cpp, GPT-2 has only gelu_tanh"
        raise ValueError(f"model.activation={config.activation.name}: can't be exported to gguf; {only}")
    if tokenizer.kind not in BPE:
        why = "it has no merges" if tokenizer.kind == "byte" else "it is not byte-level BPE"
        raise ValueError(f"tokenizer.kind={tokenizer.kind}: can't be exported to gguf, because {why}; train with bpe")
    if not tokenizer.vocabulary().merges:
        raise ValueError(f"tokenizer.kind={tokenizer.kind}: can't be exported to gguf, because it has no merges")
    if tokenizer.eot is None:
        raise ValueError(
            f"tokenizer.kind={tokenizer.kind}: can't be exported to gguf, because it has no token that ends a text, "
            "and llama.cpp would use token 11; name an eos_token in the tokenizer_config.json of its folder"
        )


def write(
    path: Path, name: str, config: Plain, weights: dict[str, torch.Tensor], tokenizer: Tokenizer, outtype: str
) -> None:
    """Write the file atomically.

    config, weights: as transformers stores them. outtype: f32, f16 or q8_0, of the matrices; vectors and positions
    stay in float32, and so do matrices whose rows are no multiple of q8_0's blocks of 32 numbers.
    """
    from gguf import GGUFWriter

    needs = sum(tensor.numel() * 4 for tensor in weights.values())
    with atomic_path(path, needs=needs) as temporary:
        writer = GGUFWriter(temporary, config["model_type"])
        try:
            writer.add_type("model")
            writer.add_name(name)
            _add_settings(writer, config, outtype)
            _add_tokenizer(writer, tokenizer)
            _add_weights(writer, config, weights, outtype)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def _add_settings(writer: GGUFWriter, config: Plain, outtype: str) -> None:
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    files = {"f32": LlamaFileType.ALL_F32, "f16": LlamaFileType.MOSTLY_F16, "q8_0": LlamaFileType.MOSTLY_Q8_0}
    writer.add_file_type(files[outtype])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    if config["model_type"] == "gpt2":
        writer.add_context_length(config["n_positions"])
        writer.add_embedding_length(config["n_embd"])
        writer.add_block_count(config["n_layer"])
        writer.add_head_count(config["n_head"])
        writer.add_feed_forward_length(config["n_inner"] or 4 * config["n_embd"])
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
        return
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    for add in (writer.add_rope_dimension_count, writer.add_key_length, writer.add_value_length):
        add(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])


def _add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.vocabulary()
    names = token_names(vocabulary)
    special = {token: name for name, token in vocabulary.special.items()}
    ids = range(vocabulary.size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([names.get(i) or special.get(i) or f"[PAD{i}]" for i in ids])
    writer.add_token_types([TEXT if i in names else SPECIAL if i in special else UNUSED for i in ids])
    writer.add_token_merges([f"{names[left]} {names[right]}" for left, right, _ in vocabulary.merges])
    assert vocabulary.eot is not None
    writer.add_bos_token_id(vocabulary.eot)
    writer.add_eos_token_id(vocabulary.eot)
    writer.add_add_bos_token(False)


def _add_weights(writer: GGUFWriter, config: Plain, weights: dict[str, torch.Tensor], outtype: str) -> None:
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGMLQuantizationType, get_tensor_name_map, quants

    arch = next(arch for arch in MODEL_ARCH if MODEL_ARCH_NAMES[arch] == config["model_type"])
    names = get_tensor_name_map(arch, config.get("n_layer") or config["num_hidden_layers"])
    for theirs, tensor in weights.items():
        name = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
        assert name is not None, theirs
        array = np.ascontiguousarray(_laid_out(theirs, tensor, config).float().numpy())
        kind = GGMLQuantizationType[outtype.upper() if _is_quantized(name, array, outtype) else "F32"]
        writer.add_tensor(name, quants.quantize(array, kind), raw_dtype=kind)


def _is_quantized(name: str, array: np.ndarray, outtype: str) -> bool:
    return array.ndim == 2 and name != "position_embd.weight" and (outtype != "q8_0" or array.shape[1] % 32 == 0)


def _laid_out(name: str, tensor: torch.Tensor, config: Plain) -> torch.Tensor:
    """The matrix (out, in), with the order of rows that llama.cpp expects."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
    if config["model_type"] == "llama" and heads is not None:
        halves = tensor.unflatten(0, (config[heads], 2, config["head_dim"] // 2))  # (heads, 2, D/2, …)
        neighbours: torch.Tensor = halves.transpose(1, 2).flatten(0, 2)
        return neighbours
    return transposed(name, tensor)
