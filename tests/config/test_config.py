"""A wrong setting gives a one-line error that names it; a valid one reaches the dataclass unchanged."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gptexp.compose.composition import compose, config_from_plain
from gptexp.compose.overrides import jobs_of, quoted
from gptexp.compose.presets import conf_dir
from gptexp.compose.registry import groups
from gptexp.config import Activation, Config, GPTConfig, Position, TextConfig
from gptexp.config.conversion import from_plain, to_plain
from gptexp.util.errors import ConfigError


def test_default_experiment_is_mini_gpt_on_pydocs_with_characters() -> None:
    config = compose()
    assert (config.model.kind, config.data.kind, config.tokenizer.kind) == ("gpt", "pydocs", "char")
    assert isinstance(config.model, GPTConfig)
    assert (config.model.n_layer, config.model.n_head, config.model.n_embd, config.model.block_size) == (4, 4, 128, 128)
    assert config.name == "mini_gpt-pydocs"


def every_option() -> list[str]:
    return [
        f"{group}={option}"
        for group, options in groups().items()
        for option in options
        if group not in ("experiment", "debug", "sweep")
    ] + [f"+{group}={option}".lstrip("+") for group in ("experiment", "debug", "sweep") for option in groups()[group]]


@pytest.mark.parametrize("option", every_option())
def test_every_preset_composes(option: str) -> None:
    needs = {"data=text": ["data.path=a.txt"], "data=huggingface": ["data.dataset=text"]}
    # Its init_from is not resolved here, and so does not replace mini_gpt, which selects Muon.
    needs["finetune=lora"] = ["experiment=finetune_lm", "optimizer=adamw"]
    needs |= {"data=labelled": ["data.path=a.csv"], "objective=classification": ["data=labelled", "data.path=a.csv"]}
    assert isinstance(compose([option, *needs.get(option, [])]), Config)


@pytest.mark.parametrize("model", ["gpt1", "gpt2_small", "gpt2_medium", "gpt2_large", "gpt2_xl"])
def test_large_models_select_gpt2_tokens_unless_overridden(model: str) -> None:
    assert compose([f"model={model}"]).tokenizer.kind == "gpt2"
    assert compose([f"model={model}", "tokenizer=byte"]).tokenizer.kind == "byte"
    assert compose(["tokenizer=byte", f"model={model}"]).tokenizer.kind == "byte"


@pytest.mark.parametrize(("model", "kind"), [("mini_gpt", "muon"), ("modern_gpt", "muon"), ("bigram", "adamw")])
def test_mini_gpt_selects_muon_unless_overridden(model: str, kind: str) -> None:
    assert compose([f"model={model}"]).optimizer.kind == kind
    assert compose(["optimizer=adamw", f"model={model}"]).optimizer.kind == "adamw"


WRONG = [
    (["model.n_lyer=3"], "model.n_lyer=3: no such setting; did you mean model.n_layer?"),
    (["+model.n_lyer=3"], "model.n_lyer=3: no such setting; did you mean model.n_layer?"),
    (["n_layer=3"], "n_layer=3: no such setting; did you mean model.n_layer?"),
    (["+sede=3"], "sede=3: no such setting; did you mean seed?"),
    (["model=gpt2_smal"], "model=gpt2_smal: no such option; did you mean gpt2_small"),
    (["modle=bigram"], "modle=bigram: no such setting; did you mean model?"),
    (["model.n_layer=2.5"], "model.n_layer=2.5: must be a whole number"),
    (["model.n_layer=0"], "model.n_layer=0: must be at least 1"),
    (["model.n_layer=null"], "model.n_layer=null: can't be null"),
    (["optimizer.lr=fast"], "optimizer.lr=fast: must be a number"),
    (["optimizer.lr=1e30"], "optimizer.lr=1e+30: must be above 0 and below 1e+30"),
    (["optimizer=muon", "optimizer.muon_lr=inf"], "optimizer.muon_lr=inf: must be above 0 and below 1e+30"),
    (["resume="], "RUN is empty; give a run folder, a checkpoint file, or `latest`"),
    (
        ["callbacks=early_stopping", "callbacks.plugins.early_stopping.monitor=val/los"],
        "callbacks.plugins.early_stopping.monitor=val/los: must be a metric of objective=lm: val/loss, val/bpb",
    ),
    (["model.bias=perhaps"], "model.bias=perhaps: must be true or false"),
    (["model.norm=layernrom"], "model.norm=layernrom: choose one of layernorm, rmsnorm, none"),
    (["model.dropout=1.5"], "model.dropout=1.5: must be at least 0 and below 1"),
    (["model.n_embd=100", "model.n_head=3"], "model.n_embd=100: must be a multiple of model.n_head=3; nearest: 99 or"),
    (["model.n_kv_head=3"], "model.n_kv_head=3: must divide model.n_head=4"),
    (["model.position=rope", "model.n_embd=12"], "model.position=rope: needs an even head_dim"),
    (["model.kind=mlp"], "model.kind=mlp: is set by the preset"),
    (["data.block_size=3"], "data.block_size=3: no such setting; did you mean model.block_size?"),
    (["schedule.warmup_steps=581"], "schedule.warmup_steps=581: must be at most trainer.max_steps=580"),
    (
        ["trainer.devices=2", "data.micro_batch_size=5", "data.global_batch_size=12"],
        "data.global_batch_size=12: must be a multiple of 10 (micro batch 5 × 2 devices)",
    ),
    (
        ["data.global_batch_size=4", "data.global_batch_tokens=512"],
        "data.global_batch_tokens=512: conflicts with data.global_batch_size=4",
    ),
    (["data.global_batch_tokens=100"], "data.global_batch_tokens=100: must be a multiple of model.block_size=128"),
    (["data.val_fraction=1"], "data.val_fraction=1.0: must be between 0 and 1"),
    (["tokenizer.vocab_size=300"], "tokenizer.vocab_size=300: only a tokenizer of kind bpe has it"),
    (["tokenizer=bpe", "tokenizer.vocab_size=256"], "tokenizer.vocab_size=256: must be at least 257"),
    (
        ["experiment=shakespeare_char_gpu", "schedule=constant"],
        "schedule=constant: experiment=shakespeare_char_gpu sets schedule.min_lr_ratio, which only a schedule of kind",
    ),
    (["trainer.precision=bf17"], "trainer.precision=bf17: choose one of auto, 32-true"),
    (
        ["trainer=fsdp", "trainer.precision=16-mixed"],
        "trainer.precision=16-mixed: not supported with trainer.strategy=fsdp",
    ),
    (["trainer.devices=many"], "trainer.devices=many: must be auto or a number of processes"),
    (["trainer.accelerator=tpu"], "trainer.accelerator=tpu: choose one of auto, cpu, gpu, mps"),
    (["data=text"], "data.path=null: must name the files to read"),
    (["data=text", "data.path=x", "data.encoding=utf-9"], "data.encoding=utf-9: unknown text encoding"),
    (["data=text", "data.path=x", "data.encoding=base64"], "data.encoding=base64: unknown text encoding"),
    (["data=text", "data.path=x", "data.encoding=undefined"], "data.encoding=undefined: unknown text encoding"),
    (["data=huggingface"], "data.dataset=null: must name the data set"),
    (["name=a/b"], "name=a/b: must be a valid folder name"),
    (["name=.."], "name=..: must be a valid folder name"),
    (["seed=-1"], "seed=-1: must be a whole number from 0"),
    (["model.n_layer=1,2"], "model.n_layer=1,2: several values are a sweep; add -m"),
    (["resume=a", "init_from=b"], "a: no such run"),
    (["model"], "model: not of the form key=value"),
]


@pytest.mark.parametrize(("overrides", "message"), WRONG, ids=[" ".join(o) for o, _ in WRONG])
def test_a_wrong_setting_gives_one_line_with_key_value_and_remedy(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose(overrides)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_wrong_command_line_fails_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['train', 'model.n_lyer=3']\n"
        "from gptexp.train import main\n"
        "try: main()\n"
        "except SystemExit as e: print(e.code, [m for m in ('torch', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.strip() == "2 []"
    assert done.stderr.strip() == "error: model.n_lyer=3: no such setting; did you mean model.n_layer?"


def test_an_invalid_sweep_fails_before_its_first_job(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['train', '-m', 'model.n_head=4,3', 'debug=smoke']\n"
        "from gptexp.train import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: model.n_embd=128: must be a multiple of model.n_head=3")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["哈利/*.txt", "books[1].txt", "a b's.txt", "{x}.txt", "(1).txt", "50%.txt"])
def test_a_path_that_breaks_hydras_grammar_is_quoted(path: str) -> None:
    data = compose(["data=text", f"data.path={path}"]).data
    assert isinstance(data, TextConfig)
    assert data.path == path


def test_an_existing_path_with_a_comma_is_one_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a,b.txt").touch()
    monkeypatch.chdir(tmp_path)
    assert quoted("data.path=a,b.txt") == "data.path='a,b.txt'"
    assert quoted("data.path=a,c.txt") == "data.path=a,c.txt"


def test_settings_survive_a_round_trip_through_yaml() -> None:
    config = compose(
        ["model.position=rope", "model.activation=relu2", "optimizer=muon", "schedule=wsd", "tokenizer=bpe"]
    )
    again = config_from_plain(yaml.safe_load(yaml.safe_dump(to_plain(config))))
    assert again == config
    assert isinstance(again.model, GPTConfig)
    assert (again.model.position, again.model.activation) == (Position.rope, Activation.relu2)


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"kind": "os.system"}, "model.kind=os.system: unknown; choose one of"),
        ({"kind": "gpt", "_target_": "os.system"}, "model: Key '_target_' not in 'GPTConfig'"),
        ({"kind": "gpt", "n_layer": "${oc.env:HOME}"}, "model: stored settings must be plain values"),
        ({"kind": "gpt", "n_layer": [1]}, "model: "),
        ({"kind": "gpt", "n_layer": 0}, "model: model.n_layer=0: must be at least 1"),
        (["gpt"], "model: not a group of settings"),
    ],
)
def test_untrusted_settings_are_treated_as_data(plain: object, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_plain("model", plain)
    assert str(error.value).startswith(message)


def test_the_last_key_of_a_sweep_varies_fastest() -> None:
    assert jobs_of(["a=1,2", "b=x", "c=3,4"]) == [
        ["a=1", "b=x", "c=3"],
        ["a=1", "b=x", "c=4"],
        ["a=2", "b=x", "c=3"],
        ["a=2", "b=x", "c=4"],
    ]


def test_a_batch_size_in_tokens_overrides_the_presets_windows() -> None:
    assert compose(["debug=smoke", "data.global_batch_tokens=256"]).windows_per_step == 2
    assert compose(["experiment=shakespeare_char_gpu", "data.global_batch_tokens=512"]).windows_per_step == 2
    assert compose(["debug=smoke", "experiment=shakespeare_char_cpu"]).schedule.warmup_steps is None


def test_the_first_line_of_every_preset_describes_it() -> None:
    for path in conf_dir().rglob("*.yaml"):
        assert re.match(r"(# @package _global_\n)?# [^@].{5,}", path.read_text(encoding="utf-8")), path


def test_the_learning_rate_decreases_with_width() -> None:
    rates = [compose([f"model={m}"]).lr for m in ("mini_gpt", "baby_gpt", "gpt2_small", "gpt2_xl")]
    assert rates == pytest.approx([5.92e-3, 1.584e-3, 6.894e-4, 2.858e-4], rel=1e-3)
    assert compose(["optimizer.lr=0.5"]).lr == 0.5
