"""Import and export of Llama and Qwen3 in Hugging Face's format, compared with transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers")  # it needs newer packages than the lowest that gptexp allows

from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from gptexp.commands.export import export
from gptexp.config.conversion import from_plain
from gptexp.config.model import GPTConfig
from gptexp.config.tokenizer import BPEConfig, ByteConfig, CharConfig, GPT2TokenizerConfig
from gptexp.runs.huggingface.config import read_model
from gptexp.runs.opening import load
from support.huggingface_folders import assert_same, ours_of, random_checkpoint, store_random
from support.runs import story
from support.tokenizer_files import learned, saved

VOCAB = 311
ODD: dict[str, Any] = {
    "vocab_size": VOCAB,
    "max_position_embeddings": 19,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "intermediate_size": 37,
    "bos_token_id": None,
    "eos_token_id": None,
}
MODELS: dict[str, tuple[type, type]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    saved(folder, *learned(VOCAB, story(50)))
    return folder


@pytest.fixture
def make(tmp_path: Path, tokenizer_folder: Path) -> Callable[..., Path]:
    """A folder with a random model of transformers, and a tokenizer."""

    def folder_of(kind: str = "llama", store: Callable[..., object] | None = None, **settings: Any) -> Path:
        torch.manual_seed(1)
        config, model_type = MODELS[kind]
        model = model_type(config(**ODD | settings))
        return store_random(model, model.model.embed_tokens.weight, tmp_path / "theirs", tokenizer_folder, store)

    return folder_of


def half(model: Any, folder: Path) -> None:
    model.half().save_pretrained(folder)


def sharded(model: Any, folder: Path) -> None:
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 2


def by_transformers_4(model: Any, folder: Path) -> None:
    """The frequencies of RoPE among the weights, no prefix, a pickle, and theta beside rope_scaling."""
    model.config.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    theta = config.pop("rope_parameters")["rope_theta"]
    config |= {"rope_theta": theta, "rope_scaling": None}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    stored = {name.removeprefix("model."): tensor for name, tensor in model.state_dict().items()}
    stored["layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(3)
    torch.save(stored, folder / "pytorch_model.bin")


def theirs_of(folder: Path, dtype: Any = torch.float32) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model.eval()


def rope(theta: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta}}


CASES: dict[str, tuple[str, dict[str, Any], Callable[..., object] | None]] = {
    "grouped keys": ("llama", {}, None),
    "one key per query, tied": ("llama", {"num_key_value_heads": 4, "tie_word_embeddings": True}, None),
    "theta and epsilon": ("llama", rope(70.0) | {"rms_norm_eps": 0.1}, None),
    "biases, sharded": ("llama", {"attention_bias": True, "mlp_bias": True}, sharded),
    "float16": ("llama", {"num_hidden_layers": 1}, half),
    "transformers 4": ("llama", rope(70.0), by_transformers_4),
    "more rows than tokens": ("llama", {"vocab_size": VOCAB + 9}, None),
    "gains of queries and keys": ("qwen3", {}, None),
    "one epsilon for all norms, tied": ("qwen3", {"rms_norm_eps": 0.1, "tie_word_embeddings": True}, None),
    "qwen3 with another theta": ("qwen3", rope(70.0) | {"num_key_value_heads": 1}, sharded),
}


@pytest.mark.parametrize("case", CASES)
def test_a_transformers_model_gives_the_same_logits_here_and_back(
    make: Callable[..., Path], tmp_path: Path, case: str
) -> None:
    kind, settings, store = CASES[case]
    folder = make(kind, store, **settings)
    (ours, tokenizer), theirs = ours_of(folder), theirs_of(folder)
    vocab = theirs.config.vocab_size
    assert_same(ours, theirs, vocab, length=19)
    assert tokenizer.encode(story(4)).tolist() == AutoTokenizer.from_pretrained(folder)(story(4))["input_ids"]
    export(str(folder), tmp_path / "back")
    back = theirs_of(tmp_path / "back")
    assert type(back) is type(theirs)
    assert_same(ours, back, vocab, length=19)
    before, after = theirs.config.to_dict(), back.config.to_dict()
    compared = {*ODD, "rms_norm_eps", "rope_parameters", "tie_word_embeddings", "attention_bias"}
    changed = {key for key in compared if before[key] != after[key]}
    assert changed <= {"bos_token_id", "eos_token_id"}  # now those of the tokenizer
    assert ours_of(tmp_path / "back")[1].fingerprint == tokenizer.fingerprint


LLAMA: dict[str, Any] = {
    "kind": "gpt",
    "block_size": 24,
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 24,
    "bias": False,
    "norm": "rmsnorm",
    "position": "rope",
    "activation": "swiglu",
    "mlp_ratio": 2.7,
}
MUP = {"parametrization": "mup", "base_width": 5}
OURS: dict[str, dict[str, Any]] = {
    "untied": {"tie_weights": False},
    "tied": {},
    "grouped keys": {"n_kv_head": 2},
    "biases": {"bias": True, "n_kv_head": 1},
    "theta and epsilon": {"rope_theta": 70.0, "norm_eps": 0.1},
    "qk_norm": {"qk_norm": True, "n_kv_head": 2, "norm_eps": 0.1},
    "qk_norm with gains": {"qk_norm": True, "qk_norm_gain": True, "n_kv_head": 2},
    "mup": MUP,
    "mup with qk_norm": {**MUP, "qk_norm": True, "tie_weights": False},
    "mup with gains": {**MUP, "qk_norm": True, "qk_norm_gain": True},
    "zero initialization": {"init": "zero", "dropout": 0.2, "attn_dropout": 0.1},
}


@pytest.mark.parametrize("case", OURS)
def test_a_gptexp_model_gives_the_same_logits_in_transformers(tmp_path: Path, case: str) -> None:
    path = random_checkpoint(tmp_path / "ours.ckpt", from_plain("model", LLAMA | OURS[case]), dtype=torch.float64)
    export(str(path), tmp_path / "out")
    theirs = theirs_of(tmp_path / "out", dtype=torch.float64)
    assert type(theirs) is (Qwen3ForCausalLM if OURS[case].get("qk_norm") else LlamaForCausalLM)
    assert theirs.dtype == torch.float64
    assert theirs.config.attention_dropout == OURS[case].get("attn_dropout", 0)
    tokens = torch.arange(24)[None]
    ours = ours_of(path)[0](tokens)
    assert float(ours.detach().std()) > 0.01
    # transformers computes the norms and angles in float32.
    torch.testing.assert_close(ours, theirs(tokens).logits, rtol=0, atol=1e-5)
    again = ours_of(tmp_path / "out")[0](tokens)
    torch.testing.assert_close(ours, again.double(), rtol=0, atol=1e-5)


KINDS = [CharConfig(), ByteConfig(), BPEConfig(vocab_size=290), GPT2TokenizerConfig()]


@pytest.mark.parametrize("kind", KINDS, ids=lambda config: config.kind)
def test_every_tokenizer_gives_the_same_tokens_and_text_in_transformers(tmp_path: Path, kind: Any) -> None:
    path = random_checkpoint(tmp_path / "ours.ckpt", from_plain("model", LLAMA), kind)
    export(str(path), tmp_path / "out")
    (ours, tokenizer), theirs = ours_of(path), theirs_of(tmp_path / "out")
    assert_same(ours, theirs, tokenizer.vocab_size, length=24)
    reference, text = AutoTokenizer.from_pretrained(tmp_path / "out"), story(9)
    assert reference(text)["input_ids"] == tokenizer.encode(text).tolist()
    assert reference.decode(reference(text)["input_ids"]) == text
    assert reference.eos_token_id == tokenizer.eot
    assert ours_of(tmp_path / "out")[1].fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position": "learned"}, "model.position=learned: can't be exported; train with model.position=rope (then"),
        ({"norm": "layernorm"}, "model.norm=layernorm: can't be exported; train with model.norm=rmsnorm (then"),
        ({"norm_position": "post"}, "model.norm_position=post: can't be exported; train with model.norm_position=pre"),
        ({"residual": False}, "model.residual=false: can't be exported; train with model.residual=true "),
        ({"activation": "relu2"}, "model.activation=relu2: can't be exported; train with model.activation=swiglu "),
        ({"mlp_ratio": 0.0}, "model.mlp_ratio=0.0: can't be exported; train with model.mlp_ratio=4.0 "),
        ({"qk_norm": True, "bias": True}, "model.bias=true: can't be exported; train with model.bias=false "),
        ({"ngram": 2}, "model.ngram=2: can't be exported; train with model.ngram=1 "),
        ({"window": "SL"}, "model.window=SL: can't be exported; train with model.window=null "),
    ],
)
def test_settings_that_llama_lacks_are_refused_by_name(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = random_checkpoint(tmp_path / "ours.ckpt", from_plain("model", LLAMA | change))
    with pytest.raises(ValueError, match="can't be exported") as caught:
        export(str(path), tmp_path / "out")
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "out").exists()


def test_the_default_model_names_the_settings_of_both_forms() -> None:
    from gptexp.runs.huggingface.config import form_of

    with pytest.raises(ValueError, match=r"model\.position=rope: .*") as caught:
        form_of(GPTConfig(position=from_plain("model", LLAMA).position))
    assert str(caught.value) == (
        "model.position=rope: can't be exported; train with model.position=learned (then it is a GPT-2), "
        "or with model.norm=rmsnorm model.activation=swiglu (then it is a Llama)"
    )


# ----------------------------------------------------------------------------- untrusted files


BAD_CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"hidden_act": "gelu"}, "hidden_act=gelu: gptexp's GPT supports only silu"),
    ({"head_dim": 8}, "head_dim=8: gptexp's GPT supports only hidden_size/num_attention_heads = 24/4"),
    ({"head_dim": "6"}, "head_dim=6: "),
    ({"quantization_config": {"bits": 4}}, "quantization_config="),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope_parameters.rope_type=yarn: "),
    ({"rope_parameters": {"full_attention": {"rope_theta": 3}}}, "rope_parameters.full_attention="),
    ({"rope_parameters": {"rope_theta": "big"}}, "rope_theta=big: must be a number"),
    ({"rope_parameters": {"rope_theta": 0}}, "model.rope_theta=0.0: must be above 1"),
    ({"rope_parameters": ["default"]}, "rope_parameters="),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling.type=linear: "),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5: "),
    ({"use_sliding_window": True}, "use_sliding_window=true: "),
    ({"layer_types": ["sliding_attention"]}, "layer_types="),
    ({"attention_bias": True}, "attention_bias=true: must equal mlp_bias=false"),
    ({"mlp_bias": 1}, "mlp_bias=1: must be true or false"),
    ({"rms_norm_eps": 0}, "model.norm_eps=0.0: must be above 0"),
    ({"num_key_value_heads": 3}, "model.n_kv_head=3: must divide"),
    ({"num_key_value_heads": 4}, "model.layers.0.self_attn.k_proj.weight is (12, 24), that of config.json is (24, 24)"),
    ({"num_attention_heads": 8, "head_dim": 3}, "model.position=rope: needs an even head_dim"),
    ({"num_hidden_layers": 1}, "model.layers.1.input_layernorm.weight is (24,), that of config.json is none"),
    ({"num_hidden_layers": 10_000}, "model.layers.10.input_layernorm.weight is missing, that of config.json is (24,)"),
    ({"num_hidden_layers": 20_000}, "model.n_layer=20000: must be at most 10,000"),
    ({"intermediate_size": 10**9}, "model.layers.0.mlp.down_proj.weight is (24, 37), that of config.json is (24, "),
    ({"hidden_size": 10**12, "head_dim": None}, "lm_head.weight is (311, 24), that of config.json is (311, 10000"),
    ({"max_position_embeddings": 10**9}, "model.block_size=1000000000: must be at most"),
    ({"vocab_size": 310}, "needs 311 ids, but config.json has vocab_size=310"),
    ({"vocab_size": 10**12}, "vocab_size=1000000000000: must be at most 10,000,000"),
    ({"model_type": "qwen3"}, "self_attn.k_norm.weight is missing, that of config.json is (6,)"),
    ({"tie_word_embeddings": True}, "lm_head.weight differs from model.embed_tokens.weight"),
]


@pytest.mark.parametrize(("change", "message"), BAD_CONFIGS, ids=[message for _, message in BAD_CONFIGS])
def test_a_config_that_does_not_match_gives_a_one_line_error(
    make: Callable[..., Path], change: dict[str, Any], message: str
) -> None:
    folder = make()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    with pytest.raises(ValueError, match="theirs") as caught:
        ours_of(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.layers.1.self_attn.q_proj.weight", "model.norm.weight", "lm_head.weight"])
@pytest.mark.parametrize("damage", ["missing", "shape", "integers", "unknown"])
def test_a_weight_that_does_not_match_is_named(make: Callable[..., Path], name: str, damage: str) -> None:
    folder = make()
    stored = load_file(folder / "model.safetensors")
    tensor, expected = stored.pop(name), name
    if damage == "shape":
        stored[name] = tensor[:-1].contiguous()
    elif damage == "integers":
        stored[name] = tensor.long()
    elif damage == "unknown":
        expected = f"{name}.lora_A"
        stored |= {name: tensor, expected: tensor.clone()}
    save_file(stored, folder / "model.safetensors")
    with pytest.raises(ValueError, match=rf"theirs.*{expected} (is|contains) ") as caught:
        ours_of(folder)
    assert "\n" not in str(caught.value)


def test_defaults_of_transformers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for kind, (config, _) in MODELS.items():
        path.write_text(json.dumps({"model_type": kind, "head_dim": 128, "rope_theta": 5.0}))
        settings, vocab_size = read_model(path)
        theirs: Any = config(rope_theta=5.0)
        assert vocab_size == theirs.vocab_size
        assert settings["block_size"] == theirs.max_position_embeddings
        assert int(settings["mlp_ratio"] * settings["n_embd"]) == theirs.intermediate_size
        assert (settings["n_embd"], settings["n_layer"]) == (theirs.hidden_size, theirs.num_hidden_layers)
        heads = (theirs.num_attention_heads, theirs.num_key_value_heads)
        assert (settings["n_head"], settings["n_kv_head"] or settings["n_head"]) == heads
        assert (settings["norm_eps"], settings["rope_theta"]) == (theirs.rms_norm_eps, 5.0)
        assert settings["tie_weights"] is theirs.tie_word_embeddings
        path.write_text(json.dumps({"model_type": kind, "head_dim": 128}))
        assert read_model(path)[0]["rope_theta"] == config().rope_parameters["rope_theta"]


# -------------------------------------------------------------------------------- as a RUN


def test_training_starts_from_a_folder_and_its_result_is_exported(
    make: Callable[..., Path], train_here: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    folder = make("qwen3")
    line = [f"init_from={folder}", "model.block_size=16", "optimizer.lr=1e-2", "trainer.max_steps=2"]
    train_here(*line, "trainer.val_every_steps=2")
    found = load(Path("run/checkpoints/last.ckpt"))
    assert found.config["model"]["block_size"] == 16
    gains = "transformer.h.1.attn.q_norm.weight"
    before = theirs_of(folder).model.layers[1].self_attn.q_norm.weight.detach()
    change = (found.model[gains] - before).abs().max()
    assert 1e-3 < float(change) < 0.1
    export("run", tmp_path / "out")
    assert_same(ours_of("run")[0], theirs_of(tmp_path / "out"), VOCAB, length=16)
