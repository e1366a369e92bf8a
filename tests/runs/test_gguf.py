"""Export to GGUF: every tensor and the metadata, read back by the gguf package and by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

pytest.importorskip("gguf")  # the extra `gguf`

from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize

from gptexp.commands.export import export
from gptexp.config.conversion import from_plain
from gptexp.config.tokenizer import BPEConfig, ByteConfig, CharConfig
from gptexp.models.attention import rope_angles
from gptexp.models.kernels.rotation import rotate_pairs
from gptexp.runs.opening import load
from gptexp.util.errors import RunError
from support.huggingface_folders import ours_of, random_checkpoint
from support.runs import story
from support.tokenizer_files import HARD, learned, saved

SIZES: dict[str, Any] = {"kind": "gpt", "block_size": 24, "n_layer": 2, "n_head": 4, "n_embd": 32}
LLAMA: dict[str, Any] = {
    **SIZES,
    "n_kv_head": 2,
    "bias": False,
    "norm": "rmsnorm",
    "position": "rope",
    "activation": "swiglu",
    "mlp_ratio": 2.7,
    "rope_theta": 70.0,
    "norm_eps": 1e-3,
}
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {**SIZES, "norm_eps": 1e-3},
    "gpt2 without biases, untied": {**SIZES, "bias": False, "tie_weights": False, "mlp_ratio": 2.7},
    "llama": LLAMA,
    "llama with biases, untied": {**LLAMA, "bias": True, "tie_weights": False},
    "qwen3": {**LLAMA, "qk_norm": True, "qk_norm_gain": True},
    "qwen3 without gains": {**LLAMA, "qk_norm": True, "n_kv_head": 4},
}
BPE = BPEConfig(vocab_size=290)


def exported(tmp_path: Path, model: dict[str, Any], outtype: str | None = None, tokenizer: Any = BPE) -> GGUFReader:
    path = random_checkpoint(tmp_path / "ours.ckpt", from_plain("model", model), tokenizer)
    sizes = export(str(path), tmp_path / "out", file_format="gguf", outtype=outtype)
    assert sorted(sizes) == ["README.md", "model.gguf"]
    return GGUFReader(tmp_path / "out/model.gguf")


def tensors(reader: GGUFReader) -> dict[str, np.ndarray]:
    return {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}


def expected(path: Path, model: dict[str, Any]) -> dict[str, np.ndarray]:
    """The tensors of llama.cpp by name, from those of the checkpoint."""
    ours = {name.removeprefix("transformer."): tensor for name, tensor in load(path).model.items()}
    names = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "lm_head": "output"}
    parts = {"ln_1": "attn_norm", "attn.c_proj": "attn_output", "ln_2": "ffn_norm", "mlp.c_gate": "ffn_gate"}
    parts |= {"mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
    parts |= {f"attn.{letter}_norm": f"attn_{letter}_norm" for letter in "qk"}
    found: dict[str, torch.Tensor] = {}
    for name, tensor in ours.items():
        module, _, end = name.rpartition(".")
        if not module.startswith("h."):
            found[f"{names[module]}.{end}"] = tensor
            continue
        _, layer, part = module.split(".", 2)
        block, is_gpt2 = f"blk.{layer}", model.get("position") != "rope"
        if part != "attn.c_attn" or is_gpt2:
            found[f"{block}.{'attn_qkv' if part == 'attn.c_attn' else parts[part]}.{end}"] = tensor
            if is_gpt2 and not model.get("bias", True):
                found[f"{block}.{'attn_qkv' if part == 'attn.c_attn' else parts[part]}.bias"] = torch.zeros(len(tensor))
            continue
        q, k, v = tensor.split([32, 8 * model["n_kv_head"], 8 * model["n_kv_head"]])
        if model.get("qk_norm"):
            factor = (model["norm_eps"] / 1e-6) ** 0.5
            q, k = q * factor, k * factor
            for letter in "qk":
                found.setdefault(f"{block}.attn_{letter}_norm.weight", torch.ones(8))
        else:  # the columns 0, 4, 1, 5, 2, 6, 3, 7 of each head
            order = torch.arange(8).view(2, 4).T.flatten()
            q, k = (part[(8 * torch.arange(len(part) // 8)[:, None] + order).flatten()] for part in (q, k))
        found |= {f"{block}.attn_{letter}.{end}": part for letter, part in zip("qkv", (q, k, v), strict=True)}
    if not model.get("bias", True) and model.get("position") != "rope":
        found["output_norm.bias"] = torch.zeros(32)
    return {name: tensor.numpy() for name, tensor in found.items()}


@pytest.mark.parametrize("case", MODELS)
def test_every_tensor_in_float32_is_that_of_the_checkpoint(tmp_path: Path, case: str) -> None:
    found = tensors(exported(tmp_path, MODELS[case]))
    wanted = expected(tmp_path / "ours.ckpt", MODELS[case])
    assert sorted(found) == sorted(wanted)
    for name, array in found.items():
        np.testing.assert_allclose(array, wanted[name], rtol=1e-6, err_msg=name)


def test_neighbouring_pairs_of_the_permuted_rows_rotate_as_our_halves(tmp_path: Path) -> None:
    found = tensors(exported(tmp_path, LLAMA))
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))  # (T, C)
    angles = rope_angles(torch.arange(5), 8, torch.float32, theta=70.0)  # (T, D/2)

    def of_llama_cpp(name: str) -> torch.Tensor:
        """Queries or keys (heads, T, D), in which each pair (2i, 2i + 1) is a complex number that turns."""
        heads = (x @ torch.tensor(found[f"blk.1.attn_{name}.weight"]).T).unflatten(-1, (-1, 4, 2)).transpose(0, 1)
        turned = torch.view_as_complex(heads.contiguous()) * torch.polar(torch.ones(5, 4), angles)
        return torch.view_as_real(turned).flatten(-2)

    weight = load(tmp_path / "ours.ckpt").model["transformer.h.1.attn.c_attn.weight"]
    ours = rotate_pairs((x @ weight[:48].T).unflatten(-1, (-1, 8)).transpose(0, 1), angles.cos(), angles.sin())
    scores = ours[:4] @ ours[4:].repeat_interleave(2, 0).mT
    theirs = of_llama_cpp("q") @ of_llama_cpp("k").repeat_interleave(2, 0).mT
    torch.testing.assert_close(theirs, scores, rtol=1e-4, atol=1e-4)


def test_metadata_are_those_of_the_model_and_its_tokenizer(tmp_path: Path) -> None:
    reader = exported(tmp_path, LLAMA)
    _, tokenizer = ours_of(tmp_path / "ours.ckpt")
    found = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    tokens, types, merges = (found.pop(f"tokenizer.ggml.{name}") for name in ("tokens", "token_type", "merges"))
    assert found == {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "ours",
        "general.file_type": 0,
        "general.quantization_version": 2,
        "llama.vocab_size": 290,
        "llama.context_length": 24,
        "llama.embedding_length": 32,
        "llama.block_count": 2,
        "llama.feed_forward_length": 86,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 8,
        "llama.attention.value_length": 8,
        "llama.attention.layer_norm_rms_epsilon": pytest.approx(1e-3),
        "llama.rope.dimension_count": 8,
        "llama.rope.freq_base": 70.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": 289,
        "tokenizer.ggml.eos_token_id": 289,
        "tokenizer.ggml.add_bos_token": False,
    }
    assert (tokens[-1], types) == ("<|endoftext|>", [1] * 289 + [3])
    assert same_tokens(tokens, merges, tokenizer) > 100


def same_tokens(names: list[str], merges: list[str], tokenizer: Any) -> int:
    """Compare the tokens of hard texts with those of the names and merges; return how many there were."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    pairs: list[Any] = [tuple(merge.split(" ")) for merge in merges]
    library = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=pairs))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in [story(3), *HARD]:
        assert library.encode(text).ids == tokenizer.encode(text).tolist()
    return len(tokenizer.encode("".join(HARD)))


def test_gpt2_metadata_and_unused_tokens_of_a_larger_model(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path / "theirs"
    saved(folder, *learned(311, story(50)))
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=320, n_positions=24, n_embd=32, n_layer=1, n_head=2))
    theirs.save_pretrained(folder)
    export(str(folder), tmp_path / "out", file_format="gguf")
    reader = GGUFReader(tmp_path / "out/model.gguf")
    found = {name: field.contents() for name, field in reader.fields.items()}
    names, types = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
    assert (names[0], types[0], found["tokenizer.ggml.eos_token_id"]) == ("<|endoftext|>", 3, 0)
    assert names[311:] == [f"[PAD{i}]" for i in range(311, 320)]
    assert types[1:] == [1] * 310 + [5] * 9
    assert (found["gpt2.feed_forward_length"], found["gpt2.context_length"]) == (128, 24)
    assert same_tokens(names, found["tokenizer.ggml.merges"], ours_of(folder)[1]) > 100


# What transformers does not read from the file.
@pytest.mark.parametrize(("case", "given"), [("gpt2", {"n_positions": 24}), ("llama", {}), ("qwen3", {"head_dim": 8})])
def test_transformers_reads_the_same_model_and_tokens_from_the_file(
    tmp_path: Path, case: str, given: dict[str, Any]
) -> None:
    pytest.importorskip("transformers")
    import transformers
    from transformers import modeling_gguf_pytorch_utils

    exported(tmp_path, MODELS[case])
    ours, tokenizer = ours_of(tmp_path / "ours.ckpt")
    path, library = str(tmp_path / "out/model.gguf"), cast(Any, transformers)
    load_gguf_checkpoint = cast(
        Any, modeling_gguf_pytorch_utils
    ).load_gguf_checkpoint  # from_pretrained needs accelerate
    config = load_gguf_checkpoint(path)["config"] | given
    theirs = library.AutoModelForCausalLM.from_config(library.AutoConfig.for_model(**config))
    stored = load_gguf_checkpoint(path, return_tensors=True, model_to_load=theirs)["tensors"]
    missing, unexpected = theirs.load_state_dict(stored, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])  # tied
    tokens = torch.randint(290, (2, 24), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        torch.testing.assert_close(theirs.eval()(tokens).logits, ours(tokens), rtol=0, atol=1e-4)
    reference = library.AutoTokenizer.from_pretrained(tmp_path / "out", gguf_file="model.gguf")
    assert reference(story(3), add_special_tokens=False)["input_ids"] == tokenizer.encode(story(3)).tolist()


@pytest.mark.parametrize(("outtype", "share"), [("f16", 2**-11), ("q8_0", 1 / 220)])
def test_only_matrices_lose_precision(tmp_path: Path, outtype: str, share: float) -> None:
    """share: of the largest number of a block of 32, the most that a number changes."""
    model = MODELS["gpt2"] | {"mlp_ratio": 2.7}  # 86 is no multiple of 32
    reader = exported(tmp_path, model, outtype)
    wanted = expected(tmp_path / "ours.ckpt", model)
    types = {tensor.name: tensor.tensor_type for tensor in reader.tensors}
    changed = {name for name, kind in types.items() if kind is GGMLQuantizationType[outtype.upper()]}
    kept = {name for name, kind in types.items() if kind is GGMLQuantizationType.F32}
    assert changed | kept == set(wanted)
    matrices = {name for name, array in wanted.items() if array.ndim == 2} - {"position_embd.weight"}
    odd = {f"blk.{layer}.ffn_down.weight" for layer in (0, 1)} if outtype == "q8_0" else set()
    assert changed == matrices - odd
    for name, array in tensors(reader).items():
        if name in kept:
            np.testing.assert_array_equal(array, wanted[name])
        else:
            limit = np.abs(wanted[name]).reshape(len(array), -1, 2 if outtype == "f16" else 32).max(-1, keepdims=True)
            error = np.abs(array - wanted[name]).reshape(*limit.shape[:2], -1)
            assert error.max() > 0
            assert (error <= share * limit + 1e-7).all()


@pytest.mark.parametrize(
    ("model", "tokenizer", "message"),
    [
        ({**SIZES, "activation": "gelu"}, BPE, "model.activation=gelu: can't be exported to gguf; "),
        ({**SIZES, "activation": "relu2"}, BPE, "model.activation=relu2: can't be exported to gguf; "),
        (LLAMA, CharConfig(), "tokenizer.kind=char: can't be exported to gguf, because it is not byte-level BPE; "),
        (LLAMA, ByteConfig(), "tokenizer.kind=byte: can't be exported to gguf, because it has no merges; "),
        ({**LLAMA, "window": "SL"}, BPE, "model.window=SL: can't be exported; train with model.window=null "),
    ],
)
def test_what_llama_cpp_lacks_is_refused_by_name(
    tmp_path: Path, model: dict[str, Any], tokenizer: Any, message: str
) -> None:
    with pytest.raises(ValueError, match="can't be exported") as caught:
        exported(tmp_path, model, tokenizer=tokenizer)
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_without_an_end_of_text_is_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path / "theirs"
    saved(folder, *learned(311, story(50)))
    (folder / "tokenizer_config.json").write_text('{"eos_token": null}')
    GPT2LMHeadModel(GPT2Config(vocab_size=311, n_embd=32, n_layer=1, n_head=2)).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"tokenizer\.kind=files: .* no token that ends a text.*name an eos_token"):
        export(str(folder), tmp_path / "out", file_format="gguf")


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--format gguf: needs the package gguf; pip install .*\[gguf\]"):
        export("latest", tmp_path / "out", file_format="gguf")


def test_an_interrupted_export_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gguf.GGUFWriter.write_tensors_to_file", fail)
    with pytest.raises(KeyboardInterrupt):
        exported(tmp_path, LLAMA)
    assert [path.name for path in tmp_path.iterdir()] == ["ours.ckpt"]


def test_outtype_needs_gguf(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--outtype q8_0: only for --format gguf"):
        export("latest", tmp_path / "out", outtype="q8_0")
    with pytest.raises(RunError, match="latest: no run"):
        export("latest", tmp_path / "out", tmp_path, "gguf")
