"""Fine-tuning: adapters start as the source model, train alone, resume exactly and merge into the weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from gptexp.compose.composition import compose, config_from_plain
from gptexp.compose.inheritance import check_against_source
from gptexp.config import FinetuneConfig, LoRAConfig, MuonConfig
from gptexp.config.conversion import to_plain
from gptexp.config.fingerprint import identity
from gptexp.config.optimizer import AdamWConfig
from gptexp.models.build import build_model, measure_model, plain_model
from gptexp.models.classifier import Classifier
from gptexp.models.flops import train_flops_per_token
from gptexp.models.gpt import GPT
from gptexp.models.lora import LoRALinear, adapt, merged
from gptexp.objectives.loading import load_model, load_trained
from gptexp.runs import checkpoint as ckpt
from gptexp.runs.opening import load
from gptexp.training.experiment import run_experiment as run_job
from gptexp.training.optimizers import build_optimizer
from gptexp.util.errors import ConfigError
from support.run_folders import make_run, nested
from support.runs import TINY, TINY_GPT, command, story

Tune = Callable[..., ckpt.Checkpoint]

SMALL = ["model=gpt2_small", "model.n_layer=2", "model.n_head=2", "model.n_embd=8", "model.block_size=16"]
RANK3 = {"finetune": {"kind": "lora", "rank": 3, "alpha": 12.0, "dropout": 0.0, "targets": ["c_attn", "mlp.c_proj"]}}
LETTERS = "Dear Ada, the engine weaves patterns, as the loom weaves leaves. " * 60


def lora(**settings: Any) -> LoRAConfig:
    return LoRAConfig(**settings)


def small(*overrides: str, seed: int = 1) -> nn.Module:
    return build_model(compose([*SMALL, *overrides]).model, 11, seed=seed).eval()


QUIET = [*(o for o in TINY if not o.startswith("model.")), "logger=csv", "callbacks.samples.tokens=0"]
ADAPTED = ["finetune=lora", "finetune.rank=2", "optimizer.lr=0.05", "optimizer.weight_decay=0.5"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with two texts, a run, ./source, and its fine-tuned form, ./first; nothing in it is changed."""
    place = tmp_path_factory.mktemp("runs")
    (place / "story.txt").write_text(story(120) + LETTERS[:200], encoding="utf-8")
    (place / "letters.txt").write_text(LETTERS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as here:
        here.chdir(place)
        steps = ["trainer.max_steps=120", "trainer.val_every_steps=120", "optimizer.lr=0.01"]
        source = [*QUIET, *TINY_GPT, *steps, "model.block_size=16", "model.position=learned", "data.path=story.txt"]
        run_job(compose(source), Path("source"))
        run_job(compose([*QUIET, "init_from=source", "data.path=letters.txt", *ADAPTED]), Path("first"))
        yield place


@pytest.fixture
def tune(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tune:
    """Fine-tune ./source, or the run given by init_from= or resume=, into ./<folder> of a separate directory."""
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str, folder: str = "tuned") -> ckpt.Checkpoint:
        given = {override.partition("=")[0] for override in overrides}
        base = ["trainer=cpu"] if "resume" in given else [*QUIET, "data.path=letters.txt"]
        source = [] if given & {"resume", "init_from"} else ["init_from=source"]
        config = compose([*base, *source, *overrides])
        check_against_source(config)
        run_job(config, Path(folder))
        return last(folder)

    return run


def last(folder: str) -> ckpt.Checkpoint:
    return load(Path(folder) / "checkpoints/last.ckpt")


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------- the adapter


def test_adapters_start_as_exactly_the_adapted_model() -> None:
    model, tokens = small(), torch.randint(0, 11, (3, 16))
    before, names = model(tokens), set(dict(model.named_parameters()))
    adapt(model, lora(rank=3), seed=5)
    assert torch.equal(model(tokens), before)
    added = set(dict(model.named_parameters())) - names
    layers = [f"transformer.h.{i}.attn.{c}" for i in (0, 1) for c in ("c_attn", "c_proj")]
    assert added == {f"{layer}.lora_{half}" for layer in layers for half in "AB"}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == added


def test_an_adapter_adds_its_scaled_product_and_merges_into_the_weight() -> None:
    base = nn.Linear(6, 9).double()
    layer = LoRALinear(base, lora(rank=3, alpha=12.0))
    nn.init.normal_(layer.lora_B)
    x = torch.randn(4, 6, dtype=torch.float64)
    expected = x @ (base.weight + 4.0 * layer.lora_B @ layer.lora_A).T + base.bias
    assert torch.allclose(layer(x), expected, atol=1e-12)
    stored = {f"a.{name}": p.detach() for name, p in layer.named_parameters()}
    plain = merged(stored, RANK3)
    assert set(plain) == {"a.weight", "a.bias"}
    assert torch.allclose(plain["a.weight"], base.weight + 4.0 * layer.lora_B @ layer.lora_A, atol=1e-12)
    assert plain["a.bias"] is stored["a.bias"]


def test_adapter_dropout_applies_to_its_input_and_only_in_training() -> None:
    base = nn.Linear(50, 2, bias=False)
    layer = LoRALinear(base, lora(rank=2, alpha=2.0, dropout=0.5))
    with torch.no_grad():
        base.weight.zero_()
        layer.lora_A.fill_(1.0)
        layer.lora_B.fill_(1.0)
    x = torch.ones(1, 50)
    assert layer.eval()(x).tolist() == [[100.0, 100.0]]
    torch.manual_seed(1)
    dropped = layer.train()(x)[0, 0].item()  # 2 × (twice those of 50 ones that stay)
    assert dropped % 4 == 0
    assert dropped != 100


def test_initial_adapters_depend_only_on_the_seed_not_on_the_precision() -> None:
    models = [small() for _ in range(4)]
    models[3].double()
    for model, seed in zip(models, (7, 7, 8, 7), strict=True):
        adapt(model, lora(), seed=seed)
    first, same, other, wide = (model.transformer.h[1].attn.c_attn.lora_A.detach() for model in models)  # type: ignore[union-attr, index]
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert wide.dtype == torch.float64
    assert torch.equal(first, wide.float())


def test_no_adapter_leaves_the_model_unchanged() -> None:
    model = small()
    modules, state = list(model.modules()), torch.get_rng_state()
    adapt(model, FinetuneConfig(), seed=5)
    assert list(model.modules()) == modules
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


# ----------------------------------------------------------------------------- target layers


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=bigram"],
        ["model=mlp"],
        [*SMALL],
        [*SMALL, "model.tie_weights=false"],
        [*SMALL, "model.mlp_ratio=0"],
        [*SMALL, "model.activation=swiglu", "model.n_kv_head=1"],
    ],
    ids=" ".join,
)
def test_the_adapted_layers_of_the_settings_exist_in_the_model(overrides: list[str]) -> None:
    config = compose([*overrides, "tokenizer=byte"]).model
    assert config.adaptable is not None
    for layer in config.adaptable:
        adapt(build_model(config, 11, seed=1), lora(rank=1, targets=[layer]))
    model = build_model(config, 11, seed=1)
    tied = getattr(config, "tie_weights", False)
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    own = {name.split(".", 3)[3] if name.startswith("transformer.h.") else name for name in linear}
    assert own - ({"lm_head"} if tied else set()) == set(config.adaptable)


def test_a_suffix_selects_every_layer_whose_name_ends_with_it() -> None:
    model = small()
    adapt(model, lora(rank=1, targets=["c_proj"]))
    adapted = [name for name, module in model.named_modules() if isinstance(module, LoRALinear)]
    assert adapted == [f"transformer.h.{i}.{part}.c_proj" for i in (0, 1) for part in ("attn", "mlp")]


REFUSED = [
    (["finetune=lora"], "finetune=lora: needs a trained model; add init_from=RUN"),
    (["finetune=lora", "init_from=source", "finetune.rank=0"], "finetune.rank=0: must be at least 1"),
    (["finetune=lora", "init_from=source", "finetune.alpha=0"], "finetune.alpha=0.0: must be above 0"),
    (["finetune=lora", "init_from=source", "finetune.dropout=1"], "finetune.dropout=1.0: must be at least 0 and below"),
    (["finetune=lora", "init_from=source", "finetune.targets=[]"], "finetune.targets=[]: must name at least one layer"),
    (["finetune=lora", "init_from=source", "finetune.targets=c_fc"], "finetune.targets=c_fc: must be a list, such as"),
    (
        ["finetune=lora", "init_from=source", "finetune.targets=[c_attn,c_atn]"],
        "finetune.targets=[c_attn,c_atn]: the model has no separate linear layer c_atn; choose from attn.c_attn, ",
    ),
    (["finetune=lora", "init_from=source", "finetune.targets=[lm_head]"], "finetune.targets=[lm_head]: the model has"),
    (["finetune=lora", "init_from=source", "optimizer=muon"], "optimizer=muon: is not supported with finetune=lora"),
    (["finetune.rank=4"], "finetune.rank=4: only a finetune of kind lora has it"),
    (["finetune=loar"], "finetune=loar: no such option; did you mean lora?"),
]


@pytest.mark.parametrize(("overrides", "message"), REFUSED, ids=[" ".join(o) for o, _ in REFUSED])
def test_a_layer_that_cannot_be_adapted_is_refused_by_name(
    runs: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.chdir(runs)
    with pytest.raises(ConfigError) as error:
        compose(overrides)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_an_adapter_rank_above_the_layer_size_is_refused_early() -> None:
    config = compose(SMALL).model
    with pytest.raises(ValueError, match=r"finetune\.rank=9: transformer\.h\.0\.attn\.c_attn is 24 × 8; give at"):
        measure_model(partial(plain_model, config, 11), config.block_size, lora(rank=9))


# ------------------------------------------------------------------------------ training with it


def test_only_adapters_train_and_checkpoints_have_base_and_adapters(tune: Tune) -> None:
    source, tuned = last("source"), last("first")
    adapters = {name for name in tuned.model if ".lora_" in name}
    assert len(adapters) == 4
    assert equal({n: t for n, t in tuned.model.items() if n not in adapters}, source.model)
    assert all(tuned.model[name].any() for name in adapters)  # B is no longer zero
    assert set(tuned.optimizer) == adapters
    result = json.loads(Path("first/result.json").read_text(encoding="utf-8"))
    assert result["trainable_parameters"] == 2 * (16 + 48) + 2 * (16 + 16)
    assert result["parameters"] == sum(t.numel() for t in source.model.values()) + result["trainable_parameters"]
    before = json.loads(Path("source/result.json").read_text(encoding="utf-8"))
    assert before["trainable_parameters"] == before["parameters"]


def test_a_loaded_model_has_merged_adapters_and_the_same_outputs(tune: Tune) -> None:
    tuned = last("first")
    plain, _ = load_model(tuned, "here")
    _, trained = load_trained(tuned, "here", merge=False)
    assert not any(isinstance(module, LoRALinear) for module in plain.modules())
    assert {n for n, p in trained.named_parameters() if p.requires_grad} == set(tuned.optimizer)
    tokens = torch.randint(0, tuned.model["transformer.wte.weight"].shape[0], (2, 16))
    with torch.no_grad():
        assert torch.allclose(plain(tokens), trained(tokens), atol=1e-5)
        source, _ = load_model(last("source"), "source")
        assert not torch.allclose(plain(tokens), source(tokens), atol=1e-3)


@pytest.mark.slow
def test_adapters_learn_another_text(tune: Tune) -> None:
    long = ["trainer.max_steps=80", "trainer.val_every_steps=80", "optimizer.lr=0.03", "finetune.targets=[c_attn,c_fc]"]
    tune("optimizer.lr=1e-12", folder="frozen")
    tune("finetune=lora", *long)
    before, after = (json.loads(Path(f, "result.json").read_text())["metrics"]["val/bpb"] for f in ("frozen", "tuned"))
    assert after < 0.9 * before


@pytest.mark.parametrize(
    "settings",
    [
        ["data.micro_batch_size=2"],
        pytest.param(["trainer.precision=64-true"], marks=pytest.mark.slow),
        pytest.param(["trainer.precision=bf16-mixed"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_a_resumed_run_of_adapters_equals_the_uninterrupted_one(tune: Tune, settings: list[str]) -> None:
    own = ["finetune=lora", "finetune.dropout=0.2", "model.dropout=0.1", "schedule=constant", "schedule.warmup_steps=2"]
    own += ["trainer.val_every_steps=3", *settings]
    whole = tune(*own, "trainer.max_steps=6", folder="whole")
    tune(*own, "trainer.max_steps=4", folder="half")
    shutil.rmtree("source")  # a checkpoint contains everything that is needed
    rest = tune("resume=half", "trainer.max_steps=6", folder="rest")
    assert rest.step == 6
    assert rest.config["finetune"] == whole.config["finetune"]
    assert equal(rest.model, whole.model)
    assert rest.optimizer.keys() == whole.optimizer.keys()
    assert all(equal(rest.optimizer[name], state) for name, state in whole.optimizer.items())
    assert {**rest.metrics, "seconds": 0} == {**whole.metrics, "seconds": 0}


def test_resume_refuses_other_adapters_and_their_removal(tune: Tune) -> None:
    for override, message in {
        "finetune.rank=3": "finetune.rank=3: resume=first has 2, which can't change",
        "finetune.targets=[c_fc]": r"finetune.targets=\['c_fc'\]: resume=first has",
        "finetune=full": "finetune.alpha=null: resume=first has 16.0",
    }.items():
        with pytest.raises(ConfigError, match=message):
            check_against_source(compose(["resume=first", override]))


@pytest.mark.parametrize("again", ["full", "lora"])
def test_a_run_that_starts_from_adapters_uses_the_merged_weights(tune: Tune, again: str) -> None:
    first = last("first")
    second = tune("init_from=first", f"finetune={again}", "optimizer.lr=1e-12", folder="second")
    plain = merged(first.model, first.config)
    kept = {name: value for name, value in second.model.items() if ".lora_" not in name}
    assert kept.keys() == plain.keys()
    adapted = "transformer.h.0.attn.c_attn.weight"
    assert not torch.allclose(first.model[adapted], plain[adapted], atol=1e-4)
    assert all(torch.allclose(kept[name], plain[name], atol=1e-6) for name in plain)
    assert (len(kept) < len(second.model)) == (again == "lora")


def test_the_experiment_equals_nanogpts_and_accepts_any_source(tune: Tune) -> None:
    config = compose(["experiment=finetune_lm", "init_from=source", "data=text", "data.path=letters.txt"])
    assert (config.lr, config.trainer.max_steps, config.windows_per_step) == (3e-5, 20, 32)
    assert (config.schedule.kind, config.schedule.warmup_steps, config.model.block_size) == ("constant", 0, 16)
    assert config.finetune == FinetuneConfig()
    tuned = tune("experiment=finetune_lm", "finetune=lora", "optimizer.lr=3e-4", "trainer.max_steps=3")
    assert tuned.step == 3
    assert tuned.config["finetune"]["kind"] == "lora"


def test_the_experiment_without_a_source_is_refused() -> None:
    with pytest.raises(ConfigError, match="RUN: no such run; give a run folder"):
        check_against_source(compose(["experiment=finetune_lm"]))


# ---------------------------------------------------------------- optimizer, sizes, stored settings


def test_muon_never_gets_an_adapter_and_adamw_gets_nothing_else() -> None:
    model = small()
    adapt(model, lora(rank=2))
    with pytest.raises(ValueError, match="has no hidden matrices"):
        build_optimizer(model, MuonConfig(), 1e-3)
    groups = build_optimizer(model, AdamWConfig(), 1e-3).param_groups
    trained = {id(p) for group in groups for p in group["params"]}
    assert trained == {id(p) for name, p in model.named_parameters() if ".lora_" in name}


def test_frozen_weights_cost_four_flops_each_and_adapters_six() -> None:
    """Per block: 3·8·8 + 8·8 + 2·4·8·8 = 768 weights; adapters of rank 2: 2·(8 + 24) + 2·(8 + 8) = 96; lm_head 11·8."""
    config = compose(SMALL).model
    make = partial(plain_model, config, 11)
    full, tuned = measure_model(make, 16), measure_model(make, 16, lora(rank=2))
    attention = 2 * 12 * 8 * 16
    assert full.flops_per_token == 6 * (2 * 768 + 88) + attention
    assert tuned.flops_per_token == 4 * (2 * 768 + 88) + 6 * 2 * 96 + attention
    assert (tuned.trainable, tuned.parameters - full.parameters, full.trainable) == (192, 192, full.parameters)
    assert train_flops_per_token(small(), 16) == full.flops_per_token


def test_the_new_head_of_a_classifier_trains_with_the_adapters() -> None:
    """A frozen head would keep its random weights, and no label could be learned."""
    settings: Any = compose(SMALL).model
    model = Classifier(GPT(settings, 11), 3, auxiliary=True)
    adapt(model, lora(rank=2))
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert "score.weight" in trains
    assert all(".lora_" in name for name in trains - {"score.weight"})


def test_runs_without_a_finetune_setting_are_full(tune: Tune) -> None:
    """Their identity, which determines the names of sweeps and jobs, is unchanged."""
    plain = to_plain(compose(["model.n_layer=2"]))
    assert plain["finetune"] == {"kind": "full"}
    older = {key: value for key, value in plain.items() if key != "finetune"}
    assert identity(older) == identity(plain)
    assert identity(nested()) == "f55a6d70"  # as in that version
    assert identity(plain | RANK3) != identity(plain)
    assert config_from_plain(older) == config_from_plain(plain)
    with pytest.raises(ConfigError, match="finetune: not a group of settings"):
        merged({}, {"finetune": "lora"})


def test_a_run_of_an_older_version_opens_resumes_and_initializes(tune: Tune) -> None:
    stored = last("source")
    del stored.config["finetune"]
    ckpt.save(stored, Path("source/checkpoints/last.ckpt"))
    settings = yaml.safe_load(Path("source/config.yaml").read_text(encoding="utf-8"))
    del settings["finetune"]
    Path("source/config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    model, _ = load_model(last("source"), "source")
    assert equal(dict(model.named_parameters()), stored.model)
    further = tune("resume=source", "trainer.max_steps=122", folder="further")
    assert (further.step, further.config["finetune"]) == (122, {"kind": "full"})
    assert tune("finetune=lora").config["finetune"]["kind"] == "lora"
    Path("alone.ckpt").write_bytes(Path("source/checkpoints/last.ckpt").read_bytes())
    assert compose(["resume=alone.ckpt", "trainer.max_steps=130"]).finetune == FinetuneConfig()


def test_older_runs_are_compared_as_full(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    from gptexp.report.comparison import Question, compare_folders

    adapted: dict[str, Any] = {f"finetune__{name}": value for name, value in RANK3["finetune"].items()}
    for seed in (1, 2):
        make_run(tmp_path / f"old{seed}", 2.0 + seed / 10, seed=seed)
        make_run(tmp_path / f"lora{seed}", 1.5 + seed / 10, seed=seed, **adapted)
    make_run(tmp_path / "new3", 2.3, seed=3, finetune__kind="full")
    c = compare_folders([tmp_path], Question())
    assert {row.label: sorted(row.values) for row in c.rows} == {"full": [1, 2, 3], "lora": [1, 2]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a.lora_B": None}, r"of a doesn't fit finetune\.rank=3: weight \(9, 6\), lora_A \(3, 6\), lora_B missing"),
        ({"a.weight": None}, "weight missing"),
        ({"a.lora_A": torch.zeros(4, 6)}, r"lora_A \(4, 6\)"),
        ({"a.lora_B": torch.zeros(9)}, r"lora_B \(9,\)"),
        ({"a.weight": torch.zeros(9)}, r"weight \(9,\)"),
    ],
)
def test_adapters_of_a_checkpoint_must_match_its_model(change: dict[str, torch.Tensor | None], message: str) -> None:
    stored = {"a.weight": torch.zeros(9, 6), "a.lora_A": torch.zeros(3, 6), "a.lora_B": torch.zeros(9, 3)} | change
    with pytest.raises(ValueError, match=f"x.ckpt: .*{message}"):
        merged({name: value for name, value in stored.items() if value is not None}, RANK3, "x.ckpt")


# -------------------------------------------------------------------------------- several processes


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_frozen_weights_train_the_same_on_two_processes(tune: Tune, strategy: str) -> None:
    settings = ["finetune=lora", "trainer.precision=64-true", "trainer.max_steps=4", "trainer.val_every_steps=4"]
    base = [o for o in QUIET if not o.startswith("trainer")]
    two = [f"trainer={strategy}", "trainer.accelerator=cpu", "trainer.devices=2"]
    own = ["init_from=source", "data.path=letters.txt", "hydra.run.dir=two"]
    done = command("train", *base, *own, *settings, *two, cwd=Path.cwd(), quick=True)
    assert done.returncode == 0, done.stderr
    assert " trainable" in done.stdout
    one = tune(*settings, folder="one")
    both = load(Path("two/checkpoints/last.ckpt"))
    assert both.model.keys() == one.model.keys()
    for name, value in one.model.items():
        assert torch.allclose(both.model[name], value, rtol=0, atol=1e-9), name
    adapters = [name for name in one.model if ".lora_" in name]
    assert not any(torch.equal(one.model[name], torch.zeros_like(one.model[name])) for name in adapters)
    further = command("train", "resume=two", "trainer.max_steps=6", *two, cwd=Path.cwd(), quick=True)
    assert further.returncode == 0, further.stderr
