"""Import and export of GPT-2 in Hugging Face's format, compared with transformers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers")  # it needs newer packages than the lowest that gptexp allows

from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from gptexp.commands.export import export
from gptexp.compose.composition import compose
from gptexp.config.conversion import to_plain
from gptexp.config.model import Activation, BigramConfig, GPTConfig, Parametrization
from gptexp.config.tokenizer import BPEConfig, ByteConfig, CharConfig, GPT2TokenizerConfig
from gptexp.runs import huggingface
from gptexp.runs.finding import find_checkpoint, stored_settings
from gptexp.runs.huggingface import hub
from gptexp.runs.huggingface.config import form_of, read_model
from gptexp.runs.huggingface.entries import ratio_of
from gptexp.runs.opening import load
from gptexp.tokenizers import load_tokenizer
from gptexp.util.errors import ConfigError, RunError
from support.huggingface_folders import assert_same, ours_of, random_checkpoint, store_random
from support.runs import TINY, command, story
from support.tokenizer_files import learned, saved

VOCAB = 311
ODD: dict[str, Any] = {
    "vocab_size": VOCAB,
    "n_positions": 19,
    "n_embd": 33,
    "n_layer": 2,
    "n_head": 3,
    "n_inner": 77,
    "bos_token_id": None,
    "eos_token_id": None,
    "initializer_range": 0.3,  # logits that differ by more than rounding
}


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    saved(folder, *learned(VOCAB, story(50)))
    return folder


@pytest.fixture
def make(tmp_path: Path, tokenizer_folder: Path) -> Callable[..., Path]:
    """A folder with a random GPT-2 of transformers, and a tokenizer."""

    def folder_of(name: str = "theirs", store: Callable[..., object] | None = None, **settings: Any) -> Path:
        torch.manual_seed(1)
        model = GPT2LMHeadModel(GPT2Config(**ODD | settings))
        return store_random(model, model.transformer.wte.weight, tmp_path / name, tokenizer_folder, store)

    return folder_of


def half(model: Any, folder: Path) -> None:
    model.half().save_pretrained(folder)


def sharded(model: GPT2LMHeadModel, folder: Path) -> None:
    model.save_pretrained(folder, max_shard_size="30KB")
    assert len(list(folder.glob("*.safetensors"))) > 2


def pickled(model: GPT2LMHeadModel, folder: Path) -> None:
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def pickled_in_parts(model: GPT2LMHeadModel, folder: Path) -> None:
    """The format of large models in transformers before safetensors."""
    model.config.save_pretrained(folder)
    stored, places = model.state_dict(), dict[str, str]()
    for part, names in enumerate((list(stored)[:9], list(stored)[9:]), 1):
        file = f"pytorch_model-{part:05d}-of-00002.bin"
        torch.save({name: stored[name] for name in names}, folder / file)
        places |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")


def as_in_2019(model: GPT2LMHeadModel, folder: Path) -> None:
    """Names without prefix, masks among the weights, and torch's old file format."""
    model.config.save_pretrained(folder)
    stored = dict(model.transformer.state_dict())
    for layer in range(model.config.n_layer):
        stored[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 19, 19).tril()
        stored[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    torch.save(stored, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def theirs_of(folder: Path, **settings: Any) -> Any:
    model: Any = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32, **settings)
    return model.eval()


CASES: dict[str, tuple[dict[str, Any], Callable[..., object] | None]] = {
    "odd sizes": ({}, None),
    "another epsilon": ({"layer_norm_epsilon": 0.1}, None),
    "untied": ({"tie_word_embeddings": False, "n_inner": None}, None),
    "gelu, untied, pickled": ({"tie_word_embeddings": False, "activation_function": "gelu"}, pickled),
    "relu in float16": ({"activation_function": "relu", "n_layer": 1}, half),
    "relu2, sharded": ({"activation_function": "relu2", "n_inner": 1}, sharded),
    "pickled": ({"n_embd": 39, "n_head": 13, "n_inner": 201}, pickled),
    "pickled in parts": ({}, pickled_in_parts),
    "as in 2019": ({"activation_function": "gelu_pytorch_tanh"}, as_in_2019),
    "more rows than tokens": ({"vocab_size": VOCAB + 9}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_a_transformers_model_gives_the_same_logits_here_and_back(
    make: Callable[..., Path], tmp_path: Path, case: str
) -> None:
    settings, store = CASES[case]
    folder = make(store=store, **settings)
    (ours, tokenizer), theirs = ours_of(folder), theirs_of(folder)
    vocab = theirs.config.vocab_size
    assert_same(ours, theirs, vocab, length=19)
    assert tokenizer.encode(story(4)).tolist() == AutoTokenizer.from_pretrained(folder)(story(4))["input_ids"]
    sizes = export(str(folder), tmp_path / "back")
    assert {"config.json", "model.safetensors", "tokenizer.json", "merges.txt", "vocab.json"} <= set(sizes)
    back = theirs_of(tmp_path / "back")
    assert_same(ours, back, vocab, length=19)
    before, after = theirs.config.to_dict(), back.config.to_dict()
    changed = {key for key in ODD if before[key] != after[key] and key != "initializer_range"}
    assert changed <= {"bos_token_id", "eos_token_id"}  # now those of the tokenizer
    assert ours_of(tmp_path / "back")[1].fingerprint == tokenizer.fingerprint


KINDS = [CharConfig(), ByteConfig(), BPEConfig(vocab_size=290), GPT2TokenizerConfig()]
OURS = GPTConfig(block_size=24, n_layer=2, n_head=3, n_embd=21, bias=False, mlp_ratio=2.7)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """A gptexp checkpoint with random weights that differ from the initial ones."""

    def save(config: GPTConfig = OURS, tokenizer: Any = None, dtype: Any = None) -> Path:
        return random_checkpoint(tmp_path / "ours.ckpt", config, tokenizer, dtype)

    return save


@pytest.mark.parametrize("kind", KINDS, ids=lambda config: config.kind)
def test_a_gptexp_model_gives_the_same_logits_in_transformers(
    run: Callable[..., Path], tmp_path: Path, kind: Any
) -> None:
    path = run(tokenizer=kind)
    export(str(path), tmp_path / "out")
    (ours, tokenizer), theirs = ours_of(path), theirs_of(tmp_path / "out")
    assert_same(ours, theirs, tokenizer.vocab_size, length=24)
    text = story(9)
    assert AutoTokenizer.from_pretrained(tmp_path / "out")(text)["input_ids"] == tokenizer.encode(text).tolist()
    again, same = ours_of(tmp_path / "out")
    assert same.fingerprint == tokenizer.fingerprint
    assert_same(again, theirs, tokenizer.vocab_size, length=24)


def test_other_settings_are_also_exported(run: Callable[..., Path], tmp_path: Path) -> None:
    config = replace(OURS, bias=True, tie_weights=False, activation=Activation.gelu, dropout=0.2, attn_dropout=0.1)
    path = run(config, dtype=torch.float64)
    export(str(path), tmp_path / "out")
    theirs: Any = GPT2LMHeadModel.from_pretrained(tmp_path / "out")
    theirs.eval()
    assert theirs.dtype == torch.float64
    assert (theirs.config.resid_pdrop, theirs.config.embd_pdrop, theirs.config.attn_pdrop) == (0.2, 0.2, 0.1)
    tokens = torch.arange(24)[None]
    torch.testing.assert_close(ours_of(path)[0](tokens), theirs(tokens).logits, rtol=0, atol=1e-10)


def test_multipliers_of_mup_become_part_of_the_exported_weights(run: Callable[..., Path], tmp_path: Path) -> None:
    path = run(replace(OURS, parametrization=Parametrization.mup, base_width=5), dtype=torch.float64)
    export(str(path), tmp_path / "out")
    theirs: Any = GPT2LMHeadModel.from_pretrained(tmp_path / "out")
    tokens = torch.arange(24)[None]
    torch.testing.assert_close(ours_of(path)[0](tokens), theirs.eval()(tokens).logits, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position": "rope", "n_head": 1, "n_embd": 22}, "model.position=rope: "),
        ({"position": "alibi"}, "model.position=alibi: "),
        ({"position": "sinusoidal"}, "model.position=sinusoidal: "),
        ({"position": "none"}, "model.position=none: "),
        ({"norm": "rmsnorm"}, "model.norm=rmsnorm: "),
        ({"norm": "none"}, "model.norm=none: "),
        ({"norm_position": "post"}, "model.norm_position=post: "),
        ({"residual": False}, "model.residual=false: "),
        ({"qk_norm": True}, "model.qk_norm=true: "),
        ({"n_kv_head": 1}, "model.n_kv_head=1: "),
        ({"activation": "swiglu"}, "model.activation=swiglu: "),
        ({"mlp_ratio": 0.0}, "model.mlp_ratio=0.0: "),
        ({"ngram": 2}, "model.ngram=2: "),
        ({"window": "SL"}, "model.window=SL: "),
    ],
)
def test_settings_that_transformers_gpt2_lacks_are_refused_by_name(
    run: Callable[..., Path], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    from gptexp.config.conversion import from_plain

    path = run(from_plain("model", to_plain(OURS) | change))
    with pytest.raises(ValueError, match="can't be exported") as caught:
        export(str(path), tmp_path / "out")
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "out").exists()


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.kind=bigram: can't be exported"):
        form_of(BigramConfig())


def test_an_export_is_whole_or_absent_and_never_overwrites(
    run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = run(), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(OSError, match="not empty, and never overwritten"):
        export(str(path), out)
    assert [file.name for file in out.iterdir()] == ["mine.txt"]
    (out / "mine.txt").unlink()
    before = sorted(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr("gptexp.commands.export._write_weights", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            export(str(path), out)
    assert sorted(tmp_path.iterdir()) == before
    assert list(out.iterdir()) == []
    export(str(path), out)  # an empty folder counts as missing
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(OSError, match="not a folder"):
        export(str(path), path)


# ----------------------------------------------------------------------------- untrusted files


BAD_CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "mamba"}, "model_type=mamba: must be one of gpt2, llama, qwen3"),
    ({"model_type": ["gpt2"]}, "model_type=['gpt2']: must be one of gpt2, llama, qwen3"),
    ({"layer_norm_epsilon": "small"}, "layer_norm_epsilon=small: must be a number"),
    ({"layer_norm_epsilon": 0}, "model.norm_eps=0.0: must be above 0"),
    ({"scale_attn_weights": False}, "scale_attn_weights=false: "),
    ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=true: "),
    ({"add_cross_attention": True}, "add_cross_attention=true: "),
    ({"quantization_config": {"bits": 4}}, "quantization_config="),
    ({"activation_function": "silu"}, "activation_function=silu: "),
    ({"activation_function": ["gelu"]}, "activation_function="),
    ({"n_layer": 2.0}, "n_layer=2.0: must be a whole number"),
    ({"n_layer": True}, "n_layer=true: must be a whole number"),
    ({"n_layer": 10**18}, "n_layer="),
    ({"n_layer": 20_000}, "model.n_layer=20000: "),
    ({"n_layer": 100}, "model.n_layer=100: must be at most"),
    ({"n_head": 0}, "n_head=0: "),
    ({"n_head": 5}, "must be a multiple of model.n_head=5"),
    ({"n_embd": "33"}, "n_embd=33: must be a whole number"),
    ({"n_embd": 36}, "transformer.h.0.attn.c_attn.bias is (99,), the model's is (108,)"),
    ({"n_inner": -1}, "n_inner=-1: "),
    ({"n_positions": 20}, "transformer.wpe.weight is (19, 33), the model's is (20, 33)"),
    ({"n_positions": None}, "n_positions=null: "),
    ({"vocab_size": 310}, "needs 311 ids, but config.json has vocab_size=310"),
    ({"vocab_size": 320}, "transformer.wte.weight is (311, 33), the model's is (320, 33)"),
    ({"vocab_size": 10**12}, "vocab_size=1000000000000: must be at most 10,000,000"),
    ({"resid_pdrop": 1.5}, "resid_pdrop=1.5: "),
    ({"attn_pdrop": "no"}, "attn_pdrop=no: "),
    ({"tie_word_embeddings": "yes"}, "tie_word_embeddings=yes: "),
    ({"tie_word_embeddings": False}, "lm_head.weight is missing"),
    ({"n_layer": 1}, "transformer.h.1.attn.c_attn.bias is (99,), the model's is none"),
]


@pytest.fixture
def good(make: Callable[..., Path]) -> Path:
    return make()


@pytest.mark.parametrize(("change", "message"), BAD_CONFIGS, ids=[message for _, message in BAD_CONFIGS])
def test_a_config_that_does_not_match_gives_a_one_line_error(good: Path, change: dict[str, Any], message: str) -> None:
    config = json.loads((good / "config.json").read_text(encoding="utf-8"))
    (good / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    with pytest.raises(ValueError, match="theirs") as caught:
        ours_of(good)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["empty", "cut", "other"])
def test_a_damaged_file_is_named_in_one_line(good: Path, name: str, damage: str) -> None:
    path = good / name
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": whole[:-5], "other": b"[1, 2]" * 9}[damage])
    with pytest.raises(ValueError, match=name.replace(".", r"\.")) as caught:
        ours_of(good)
    assert "\n" not in str(caught.value)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch evil-was-here",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused_and_not_executed(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    folder = make(store=pickled)
    monkeypatch.chdir(folder)
    torch.save({"wte.weight": Evil()}, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: contains more than tensors and plain data") as caught:
        ours_of(folder)
    assert "\n" not in str(caught.value)
    assert not (folder / "evil-was-here").exists()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: can't be read"):
        ours_of(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "has no weight_map"),
        ({"weight_map": {}}, "has no weight_map"),
        ({"weight_map": {"wte.weight": "../theirs.safetensors"}}, "can't be the name of a file"),
        ({"weight_map": {"wte.weight": "/etc/x.safetensors"}}, "can't be the name of a file"),
        ({"weight_map": {"wte.weight": "evil.pt"}}, "can't be the name of a file"),
        ({"weight_map": {"wte.weight": {"a": 1}}}, "can't be the name of a file"),
        ({"weight_map": {"wte.weight": "none.safetensors"}}, "no such file"),
    ],
)
def test_an_index_of_shards_can_only_name_files_in_its_folder(
    make: Callable[..., Path], index: dict[str, Any], message: str
) -> None:
    folder = make(store=sharded)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        ours_of(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pointer_of_git_lfs_is_named_with_its_remedy(good: Path, name: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
    (good / name).write_text(pointer, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{name}: is a git-lfs pointer.*git lfs pull") as caught:
        ours_of(good)
    assert "\n" not in str(caught.value)


def test_a_weights_file_error_suggests_its_folder(good: Path) -> None:
    with pytest.raises(
        ValueError, match=r"model\.safetensors: is only the weights of a model; give the folder .*theirs$"
    ):
        ours_of(good / "model.safetensors")
    (good / "config.json").unlink()
    with pytest.raises(ValueError, match=r"give the folder .*theirs, with its config\.json beside it"):
        ours_of(good / "model.safetensors")


@pytest.mark.parametrize("store", [None, pickled])
def test_an_output_layer_that_would_be_dropped_is_refused(make: Callable[..., Path], store: Any) -> None:
    folder = make(store=store, tie_word_embeddings=False)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"lm_head\.weight differs from .*wte\.weight.*\"tie_word_embeddings\": false"):
        ours_of(folder)


def test_integers_are_refused_as_weights(good: Path) -> None:
    stored = load_file(good / "model.safetensors")
    stored["transformer.ln_f.weight"] = stored["transformer.ln_f.weight"].long()
    save_file(stored, good / "model.safetensors")
    with pytest.raises(ValueError, match=r"transformer\.ln_f\.weight contains integers"):
        ours_of(good)


def test_the_feed_forward_width_is_exact_if_division_rounds() -> None:
    rounded = 0
    for n_embd in (1, 3, 33, 49, 768, 1600):
        for width in range(1, 5 * n_embd + 1):
            assert int(ratio_of(width, n_embd) * n_embd) == width
            rounded += int(width / n_embd * n_embd) != width
    assert rounded > 0


def test_alternative_names_and_defaults_of_transformers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "gpt2"}))
    settings, vocab_size = read_model(path)
    assert vocab_size == 50257
    assert settings == to_plain(GPTConfig(dropout=0.1, attn_dropout=0.1))
    named = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 3, "max_position_embeddings": 5}
    path.write_text(json.dumps({"model_type": "gpt2", **named}))
    settings, _ = read_model(path)
    assert [settings[name] for name in ("n_embd", "n_head", "n_layer", "block_size")] == [8, 2, 3, 5]


# -------------------------------------------------------------------------------- as a RUN


def test_training_starts_from_a_folder_with_a_smaller_block(
    good: Path, train_here: Callable[..., dict[str, Any]]
) -> None:
    line = [f"init_from={good}", "model.block_size=16", "optimizer.lr=1e-9", "optimizer.weight_decay=0"]
    train_here(*line, "trainer.max_steps=1", "trainer.val_every_steps=1")
    found = load(Path("run/checkpoints/last.ckpt"))
    assert found.config["model"]["block_size"] == 16
    assert found.config["name"] == "theirs-text"
    theirs = theirs_of(good).transformer.wpe.weight[:16]
    torch.testing.assert_close(found.model["transformer.wpe.weight"], theirs.detach(), rtol=0, atol=1e-6)
    assert found.tokenizer["kind"] == "files"


def test_settings_of_a_weights_folder_cannot_be_changed_or_resumed(good: Path, workplace: Path) -> None:
    line = [*[o for o in TINY if "block_size" not in o], "data.path=story.txt"]
    config = compose([*line, f"init_from={good}"])
    assert (config.model.block_size, config.model.n_layer) == (19, 2)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"resume=.*theirs: is not a gptexp run.*init_from="):
        compose([*line, f"resume={good}"])
    from gptexp.compose.commandline import check

    with pytest.raises(ConfigError, match=r"model\.n_layer=3: init_from=.* has 2"):
        check(compose([*line, f"init_from={good}", "model.n_layer=3"]))
    with pytest.raises(ConfigError, match=r"model\.block_size=20: init_from=.* has 19, which can only become smaller"):
        check(compose([*line, f"init_from={good}", "model.block_size=20"]))


def test_without_tokenizer_files_the_vocabulary_must_have_gpt2s_size(good: Path) -> None:
    for path in good.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"311 tokens instead of GPT-2's 50,257.*put tokenizer\.json"):
        ours_of(good)
    config = json.loads((good / "config.json").read_text(encoding="utf-8"))
    (good / "config.json").write_text(json.dumps(config | {"vocab_size": 50257}), encoding="utf-8")
    assert huggingface.model_settings(good)["tokenizer"] == {"kind": "gpt2"}


def test_a_folder_without_weights_names_the_expected_files(good: Path) -> None:
    (good / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"no checkpoint in it.*model\.safetensors or pytorch_model\.bin"):
        find_checkpoint(str(good))


def test_weights_without_a_run_have_no_corpus_to_score(good: Path) -> None:
    from gptexp.commands.evaluate import evaluate
    from gptexp.evaluate import parser

    with pytest.raises(ValueError, match="theirs: has no corpus; give a text with --text FILE"):
        evaluate(parser().parse_args([str(good)]))


# ----------------------------------------------------------------------------- published names


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of huggingface_hub, and no network."""
    import huggingface_hub
    from huggingface_hub import constants, file_download

    folder = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(file_download, "HF_HUB_CACHE", str(folder), raising=False)
    assert str(folder) == huggingface_hub.constants.HF_HUB_CACHE
    monkeypatch.chdir(tmp_path)
    return folder


def fill(cache: Path, source: Path, *names: str) -> Path:
    """The files after a download."""
    place, commit = cache / "models--openai-community--gpt2", "a" * 40
    (place / "refs").mkdir(parents=True, exist_ok=True)
    (place / "refs/main").write_text(commit)
    folder = place / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes((source / name).read_bytes())
    return folder


def test_a_published_model_is_read_from_the_cache(cache: Path, good: Path) -> None:
    folder = fill(cache, good, "config.json", "tokenizer.json", "tokenizer_config.json")
    settings = stored_settings("gpt2")  # downloads no weights
    assert (settings["name"], settings["model"]["n_embd"]) == ("gpt2", 33)
    with pytest.raises(RunError, match="gpt2: not on this machine"):
        find_checkpoint("gpt2")
    fill(cache, good, "model.safetensors")
    assert find_checkpoint("gpt2") == folder
    assert_same(ours_of("gpt2")[0], theirs_of(good), VOCAB, length=19)


def test_only_required_files_are_downloaded(cache: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, list[str]]] = []

    def download(repository: str, *, allow_patterns: list[str]) -> str:
        asked.append((repository, allow_patterns))
        wanted = [path.name for path in good.iterdir() if path.name in allow_patterns]
        return str(fill(cache, good, *wanted))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    stored_settings("gpt2")
    assert asked == [("openai-community/gpt2", hub.SETTINGS)]
    find_checkpoint("gpt2")
    assert asked[1:] == [("openai-community/gpt2", [*hub.SETTINGS, *hub.WEIGHTS])]
    find_checkpoint("gpt2")
    assert len(asked) == 2


def test_without_a_network_the_error_names_the_files_and_the_folder(cache: Path, good: Path) -> None:
    with pytest.raises(RunError) as caught:
        find_checkpoint("gpt2-xl")
    message = str(caught.value)
    for word in (
        "gpt2-xl: not on this machine",
        "config.json",
        "model.safetensors",
        "openai-community/gpt2-xl",
        "folder",
    ):
        assert word in message
    assert "\n" not in message
    with pytest.raises(ConfigError, match="gpt2: not on this machine"):
        compose(["init_from=gpt2"])
    with pytest.raises(ConfigError, match="resume=gpt2: is not a gptexp run"):
        compose(["resume=gpt2"])
    good.rename("gpt2")  # local files have precedence
    assert find_checkpoint("gpt2") == Path("gpt2")


# ------------------------------------------------------------------------------ the command line


@pytest.mark.slow
def test_commands_convert_from_transformers_and_back(good: Path, workplace: Path) -> None:
    settings = [f"init_from={good}", *TINY, "data.path=story.txt", "trainer.max_steps=10", "hydra.run.dir=tuned"]
    wrote = command(
        "generate", str(good), "--prompt", "The", "--temperature", "0", "--max-new-tokens", "5", cwd=workplace
    )
    assert wrote.returncode == 0, wrote.stderr
    reference, tokens = theirs_of(good), AutoTokenizer.from_pretrained(good)
    prompt = tokens("The", return_tensors="pt")
    text = tokens.decode(reference.generate(**prompt, do_sample=False, max_new_tokens=5, pad_token_id=0)[0])
    assert wrote.stdout == f"{text}\n"
    trained = command("train", *settings, cwd=workplace)
    assert trained.returncode == 0, trained.stderr
    exported = command("export", "tuned", "--format", "hf", "--out", "out", cwd=workplace)
    assert exported.returncode == 0, exported.stderr
    assert "model.safetensors" in exported.stdout
    ours, tokenizer = ours_of("tuned")
    assert_same(ours, theirs_of(workplace / "out"), VOCAB, length=16)
    assert AutoTokenizer.from_pretrained("out")(story(3))["input_ids"] == tokenizer.encode(story(3)).tolist()
    assert load_tokenizer(tokenizer.state_dict()).fingerprint == ours_of("out")[1].fingerprint
    again = command("export", "tuned", "--out", "out", cwd=workplace)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == "error: out: not empty, and never overwritten; choose another folder\n"
