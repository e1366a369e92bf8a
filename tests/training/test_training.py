"""Training as a whole: learning, written files, and resuming."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import yaml
from torch import nn
from torch.utils.data import Dataset

from gptexp.compose.composition import compose
from gptexp.runs.opening import load
from gptexp.training.experiment import run_experiment as run_job
from support.runs import TINY, TINY_GPT, command, story

Train = Callable[..., dict[str, Any]]

GPT2 = ("gpt2_small", "gpt2_medium", "gpt2_large", "gpt2_xl")
MODELS = {
    "bigram": [],
    "mlp": ["model.n_embd=8", "model.n_hidden=16", "model.n_context=4"],
    **dict.fromkeys(("self_attention", "mini_gpt", "mini_llama", "baby_gpt", "modern_gpt", "gpt1", *GPT2), TINY_GPT),
}
TOKENIZERS = ["char", "byte", "bpe_512", "gpt2"]
PAIRS = [(m, t) for m in MODELS for t in TOKENIZERS if (m, t) != ("bigram", "gpt2")]


@pytest.mark.parametrize(("model", "tokenizer"), PAIRS)
@pytest.mark.filterwarnings("ignore:.*bpe.*")
def test_every_model_trains_saves_and_generates_with_every_tokenizer(
    train_here: Train, workplace: Path, tmp_path_factory: pytest.TempPathFactory, model: str, tokenizer: str
) -> None:
    result = train_here(f"model={model}", f"tokenizer={tokenizer}", *MODELS[model])
    assert result["status"] == "completed"
    assert result["steps"] == 2
    assert math.isfinite(result["metrics"]["val/bpb"])
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (workplace / "run/checkpoints/last.ckpt").rename(elsewhere / "alone.ckpt")
    assert written(elsewhere / "alone.ckpt", "The ").startswith("The ")


def written(checkpoint: Path, prompt: str) -> str:
    """The continuation that generate writes from the checkpoint alone."""
    from gptexp.commands.generate import Writer
    from gptexp.generate import parser

    writer = Writer(parser().parse_args([str(checkpoint), "--max-new-tokens", "5"]))
    return "".join(piece for _, piece in writer.stream([(prompt, 1)]))


def test_the_run_folder_contains_the_documented_files(train_here: Train, workplace: Path) -> None:
    result = train_here(*TINY_GPT)
    folder = workplace / "run"
    found = {p.name for p in folder.iterdir()}
    events = {name for name in found if name.startswith("events.out.tfevents")}
    assert len(events) == 1
    assert found - events == {
        ".lock",
        "config.yaml",
        "provenance.json",
        "checkpoints",
        "metrics.csv",
        "samples.md",
        "result.json",
    }
    assert {"last.ckpt", "best.ckpt"} <= {p.name for p in (folder / "checkpoints").iterdir()}
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert config["model"]["n_embd"] == 16
    assert config["model"]["block_size"] == 16
    assert "block_size" not in config["data"]
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert {"command", "git", "versions", "hardware", "data"} <= provenance.keys()
    assert set(result) >= {"status", "metrics", "best", "val", "steps", "tokens", "seconds", "tokens_per_second"}
    assert result["tokens"] == 2 * 4 * 16
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2"]
    assert float(rows[1]["val/loss"]) == result["metrics"]["val/loss"]
    assert all(row["train/loss"] and row["lr"] and row["grad_norm"] for row in rows)


def test_validation_scores_the_last_tenth_cut_to_val_bytes(train_here: Train, workplace: Path) -> None:
    text = story(120)
    n_train = len(text) * 9 // 10
    scored = text[n_train:].encode()[:600].decode(errors="ignore")
    expected = hashlib.sha256(scored.encode()).hexdigest()
    first = {"char": len(scored[0].encode()), "byte": 1}
    for tokenizer in ("char", "byte"):
        for block_size in (7, 16):
            folder = f"{tokenizer}{block_size}"
            result = train_here(*TINY_GPT, f"tokenizer={tokenizer}", f"model.block_size={block_size}", folder=folder)
            assert result["val"]["text_sha256"] == expected
            assert result["val"]["bytes"] == len(scored.encode()) - first[tokenizer]
            bpb = result["val"]["nats"] / math.log(2) / result["val"]["bytes"]
            assert result["metrics"]["val/bpb"] == pytest.approx(bpb, rel=1e-12)


@pytest.mark.filterwarnings("ignore:.*bpe.*")
def test_bits_per_byte_equal_an_independent_count(train_here: Train, workplace: Path) -> None:
    """Score the whole validation text by hand: windows of block_size, every token but the first once."""
    for tokenizer in ("char", "bpe_512"):
        result = train_here(*TINY_GPT, f"tokenizer={tokenizer}", folder=tokenizer)
        from gptexp.objectives.loading import load_model

        model, tok = load_model(load(workplace / tokenizer / "checkpoints/last.ckpt"), "here")
        text = story(120)
        text = text[len(text) * 9 // 10 :].encode()[:600].decode(errors="ignore")
        tokens = torch.from_numpy(tok.encode(text)).long()
        nats, n_bytes = 0.0, 0
        with torch.no_grad():
            for i in range(1, len(tokens)):
                start = (i - 1) // 16 * 16
                log_probabilities = model(tokens[None, start:i]).double().log_softmax(-1)[0, -1]
                nats -= float(log_probabilities[tokens[i]])
                n_bytes += len(tok.decode_bytes([int(tokens[i])]))
        assert n_bytes == result["val"]["bytes"]
        assert nats / math.log(2) / n_bytes == pytest.approx(result["metrics"]["val/bpb"], abs=1e-6)


def test_the_same_command_gives_the_same_numbers(train_here: Train) -> None:
    a, b, other = (train_here(*TINY_GPT, f"seed={seed}", folder=name) for name, seed in [("a", 1), ("b", 1), ("c", 2)])
    assert a["metrics"] == b["metrics"]
    assert a["metrics"] != other["metrics"]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("dropout", ["0", "0.1"])
def test_resumed_run_equals_uninterrupted_run(train_here: Train, workplace: Path, optimizer: str, dropout: str) -> None:
    settings = [*TINY_GPT, f"optimizer={optimizer}", f"model.dropout={dropout}", "trainer.max_steps=6"]
    settings += ["trainer.val_every_steps=3", "schedule=constant", "schedule.warmup_steps=2"]
    train_here(*settings, folder="whole")
    train_here(*settings, "trainer.max_steps=4", folder="half")
    config = compose(["resume=half", "trainer.max_steps=6", "trainer=cpu"])
    run_job(config, Path("rest"))
    whole, rest = (load(workplace / name / "checkpoints/last.ckpt") for name in ("whole", "rest"))
    assert rest.step == 6
    assert all(torch.equal(whole.model[name], value) for name, value in rest.model.items())
    for name, state in whole.optimizer.items():
        assert all(torch.equal(value, rest.optimizer[name][key]) for key, value in state.items())
    assert {**whole.metrics, "seconds": 0} == {**rest.metrics, "seconds": 0}
    assert json.loads((workplace / "rest/result.json").read_text(encoding="utf-8"))["resumed_from"] == 4


def test_an_interrupted_run_resumes_in_its_folder_as_one_curve(train_here: Train, workplace: Path) -> None:
    train_here(*TINY_GPT, "trainer.max_steps=4", "schedule=constant", folder="run")
    (workplace / "run/result.json").unlink()  # simulates a kill
    done = command("train", "resume=run", "trainer.max_steps=6", "trainer=cpu", cwd=workplace)
    assert done.returncode == 0, done.stderr
    with (workplace / "run/metrics.csv").open(encoding="utf-8", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "4", "5", "6"]
    assert "resuming from step 4" in done.stdout


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_job_compiled_after_another_shape_is_not_dynamic(train_here: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    dynamic: list[bool] = []

    def backend(graph: Any, inputs: list[Any]) -> Any:
        dynamic.append(any(isinstance(value, torch.SymInt) for value in inputs))
        return graph.forward

    original = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: original(module, backend=backend))
    for size in (8, 16):
        begun = len(dynamic)
        train_here(*TINY_GPT, "trainer.compile=true", f"model.block_size={size}", folder=f"block{size}")
        assert dynamic[begun] is False  # of the training step; the last, smaller batch of the validation may be dynamic
    assert begun


def test_a_full_gpu_suggests_the_next_smaller_micro_batch_size(
    train_here: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gptexp.models.gpt import GPT

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of 1 GiB. See x."
        )

    monkeypatch.setattr(GPT, "forward", full)
    with pytest.raises(
        ValueError, match=r"^CUDA out of memory\. Tried to allocate 2.00 GiB; a micro-batch has 4 windows"
    ) as error:
        train_here(*TINY_GPT)
    assert str(error.value).endswith(
        "use data.micro_batch_size=2 (gives the same steps), trainer.recompute=blocks, or a smaller model.block_size"
    )


def test_resume_keeps_the_precision_on_another_machine_bitwise(
    train_here: Train, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gptexp.machine import hardware

    settings = [*TINY_GPT, "schedule=constant", "trainer.max_steps=4"]
    train_here(*settings, folder="whole")
    train_here(*settings, "trainer.max_steps=2", folder="half")
    monkeypatch.setattr(hardware, "fastest_precision", lambda *_: ("bf16-mixed", "faster here"))
    run_job(compose(["resume=half", "trainer.max_steps=4", "trainer=cpu"]), Path("rest"))
    assert train_here(*settings, folder="new")["precision"] == "bf16-mixed"
    whole, rest, new = (load(workplace / name / "checkpoints/last.ckpt") for name in ("whole", "rest", "new"))
    assert (whole.precision, rest.precision, new.precision) == ("32-true", "32-true", "bf16-mixed")
    assert all(torch.equal(whole.model[name], value) for name, value in rest.model.items())
    assert not all(torch.equal(whole.model[name], value) for name, value in new.model.items())


def test_resume_refuses_fixed_settings_by_name(train_here: Train, workplace: Path) -> None:
    from gptexp.compose.inheritance import check_against_source
    from gptexp.util.errors import ConfigError

    train_here(*TINY_GPT)
    for override, message in {
        "model.n_layer=2": "model.n_layer=2: resume=run has 1, which can't change",
        "optimizer.lr=0.5": "optimizer.lr=0.5: resume=run has null, which can't change",
        "data.val_bytes=500": "data.val_bytes=500: resume=run has 600",
        "seed=2": "seed=2: resume=run has 1",
        "trainer.precision=bf16-mixed": "trainer.precision=bf16-mixed: resume=run has auto",
    }.items():
        with pytest.raises(ConfigError) as error:
            check_against_source(compose(["resume=run", override]))
        assert str(error.value).startswith(message)
    check_against_source(compose(["resume=run", "trainer.max_steps=9", "data.num_workers=1", "trainer.devices=2"]))


def test_resume_on_another_text_is_refused(train_here: Train, workplace: Path) -> None:
    train_here(*TINY_GPT)
    (workplace / "story.txt").write_text(story(119), encoding="utf-8")
    with pytest.raises(ValueError, match="the text or its tokens have changed"):
        run_job(compose(["resume=run", "trainer.max_steps=4", "trainer=cpu"]), Path("rest"))


def test_init_from_uses_weights_and_tokenizer_and_frees_the_rest(train_here: Train, workplace: Path) -> None:
    train_here(*TINY_GPT, "tokenizer=byte", "model.position=learned")
    (workplace / "other.txt").write_text("Quite another text, with ünknown letters. " * 60, encoding="utf-8")
    new = ["init_from=run", "data=text", "data.path=other.txt", "data.val_bytes=100", "model.block_size=8"]
    config: Any = compose([*new, "trainer.max_steps=1", "trainer=cpu", "optimizer.lr=1e-9", "model.dropout=0.1"])
    assert (config.tokenizer.kind, config.model.n_embd, config.model.dropout) == ("byte", 16, 0.1)
    run_job(config, Path("tuned"))
    before, after = (load(workplace / name / "checkpoints/last.ckpt") for name in ("run", "tuned"))
    assert after.step == 1
    assert torch.allclose(before.model["transformer.wte.weight"], after.model["transformer.wte.weight"], atol=1e-6)
    assert after.model["transformer.wpe.weight"].shape == (8, 16)


def test_a_complete_run_and_another_runs_folder_are_never_overwritten(train_here: Train, workplace: Path) -> None:
    train_here(*TINY_GPT)
    with pytest.raises(ValueError, match="contains a finished run, which is never overwritten"):
        train_here(*TINY_GPT)
    (workplace / "run/result.json").unlink()
    with pytest.raises(ValueError, match="contains another run; continue it with resume=run"):
        train_here(*TINY_GPT)


def test_accumulated_micro_batches_use_the_same_windows_and_agree(train_here: Train) -> None:
    settings = [*TINY_GPT, "trainer.precision=64-true", "trainer.max_steps=5", "trainer.val_every_steps=5"]
    losses = [
        train_here(*settings, f"data.micro_batch_size={micro}", folder=f"micro{micro}")["val"]["nats"]
        for micro in (1, 2, 4)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    assert losses[2] == pytest.approx(losses[0], rel=1e-9)


def test_a_nonfinite_loss_stops_with_step_checkpoint_and_causes(train_here: Train, workplace: Path) -> None:
    with pytest.raises(
        ValueError, match=r"train/loss is (nan|inf) at step \d+; .*Likely causes: optimizer\.lr=1\.0e\+22"
    ):
        train_here(*TINY_GPT, "optimizer.lr=1e22", "trainer.gradient_clip=null", "trainer.max_steps=20")
    assert not (workplace / "run/result.json").exists()


def test_a_model_larger_than_memory_is_refused_before_allocation(workplace: Path) -> None:
    config = compose([*TINY, "data.path=story.txt", "model=bigram", "tokenizer=gpt2"])
    import gptexp.machine.hardware as hardware

    original = hardware.free_memory
    hardware.free_memory = lambda device: 24 * 2**30
    try:
        with pytest.raises(ValueError, match=r"2,525,766,049 parameters need 37\.6 GiB .* but 24\.0 GiB are free"):
            run_job(config, Path("run"))
    finally:
        hardware.free_memory = original


def test_plugins_come_from_an_exact_list(train_here: Train) -> None:
    evil = "+callbacks.plugins.x={_target_: lightning.pytorch.LightningModule.load_from_checkpoint}"
    with pytest.raises(ValueError, match=r"callbacks\.plugins\.x\._target_=.*load_from_checkpoint: not allowed"):
        train_here(*TINY_GPT, evil)


def test_early_stopping_works_as_a_plugin(train_here: Train) -> None:
    settings = ["callbacks=early_stopping", "callbacks.plugins.early_stopping.patience=1", "optimizer.lr=1e-12"]
    result = train_here(*TINY_GPT, *settings, "trainer.max_steps=50", "trainer.val_every_steps=1")
    assert result["steps"] < 50


def test_samples_cannot_break_out_of_their_code_block() -> None:
    from gptexp.runs.samples import section, sections

    texts = ["a ```` b `", "## step 9\n\n````text\nmine\n````\n\n", ""]
    document = "".join(section(step, text) for step, text in enumerate(texts))
    assert list(sections(document + "## step 3\n\n````text\ncut sho")) == list(enumerate(texts))


def test_training_does_not_import_dependencies_of_unused_metrics() -> None:
    """scipy, matplotlib and transformers are installed with the tests, and importing them takes seconds."""
    program = (
        "import sys, gptexp.training, gptexp.training.worker, gptexp.training.fsdp\n"
        "print([m for m in ('scipy', 'matplotlib', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_models_and_generation_import_no_lightning(train_here: Train, workplace: Path) -> None:
    train_here(*TINY_GPT)
    code = (
        "import sys; from gptexp.generate import main; main(['run', '--max-new-tokens', '3'])\n"
        "print([m for m in ('lightning', 'tensorboard', 'datasets') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=workplace, check=True)
    assert done.stderr.strip() == "[]"


def test_a_refused_resume_leaves_the_run_unchanged(train_here: Train, workplace: Path) -> None:
    train_here(*TINY_GPT, "trainer.max_steps=4")
    (workplace / "run/result.json").unlink()
    before = {p: p.read_bytes() for p in (workplace / "run").rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match=r"already complete \(4 steps\); raise trainer\.max_steps to continue"):
        run_job(compose(["resume=run", "trainer.max_steps=1", "trainer=cpu"]), Path("run"))
    assert {p: p.read_bytes() for p in (workplace / "run").rglob("*") if p.is_file()} == before
    run_job(compose(["resume=run", "trainer.max_steps=5", "trainer=cpu"]), Path("run"))
    assert {p.name for p in (workplace / "run").glob("provenance*")} == {"provenance.json", "provenance-4.json"}


def test_a_refused_run_leaves_no_folder_and_changes_no_other_file(train_here: Train, workplace: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.block_size=4000"):
        train_here(*TINY_GPT, "model.block_size=4000", "data.max_tokens=100", folder="logs/runs/x/y")
    assert not (workplace / "logs/runs/x").exists()
    (workplace / "mine").mkdir()
    (workplace / "mine/metrics.csv").write_text("my own")
    with pytest.raises(ValueError, match=r"model\.block_size=4000"):
        train_here(*TINY_GPT, "model.block_size=4000", "data.max_tokens=100", folder="mine")
    assert (workplace / "mine/metrics.csv").read_text() == "my own"


def test_every_checkpoint_contains_the_score_of_its_step(train_here: Train, workplace: Path) -> None:
    result = train_here(*TINY_GPT, "trainer.max_steps=4", "callbacks.checkpoint.every_steps=1")
    last, previous = (load(workplace / f"run/checkpoints/{name}.ckpt") for name in ("last", "previous"))
    assert (last.step, previous.step) == (4, 3)
    assert last.metrics["last"] == result["metrics"]
    assert last.metrics["best"] == result["best"]


def test_a_prompt_with_unknown_characters_is_refused_before_step_one(train_here: Train) -> None:
    with pytest.raises(ValueError, match=r"callbacks\.samples\.prompt=漢: character '漢'"):
        train_here(*TINY_GPT, "callbacks.samples.prompt=漢")


def test_samples_of_repeated_steps_are_removed(train_here: Train, workplace: Path) -> None:
    from gptexp.runs.samples import sections

    train_here(*TINY_GPT, "trainer.max_steps=4", "schedule=constant")
    (workplace / "run/result.json").unlink()
    samples = workplace / "run/samples.md"
    torn = "## step 6\n\n````text\nlost\n````\n\n## step 7\n\n````text\n三".encode()[:-1]  # the state after a kill
    samples.write_bytes(samples.read_bytes() + torn)
    run_job(compose(["resume=run", "trainer.max_steps=6", "trainer=cpu"]), Path("run"))
    text = samples.read_text(encoding="utf-8")
    assert [step for step, _ in sections(text)] == [2, 4, 6]
    assert "lost" not in text


def test_a_run_that_starts_from_another_is_named_after_both(train_here: Train, workplace: Path) -> None:
    train_here(*TINY_GPT, "name=first")
    assert compose(["init_from=run", "data=text", "data.path=story.txt"]).name == "first-text"


class Unsendable(Dataset[Any]):
    """Batches that cannot be sent to another process, as with a full /dev/shm."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, j: int) -> Any:
        return lambda: None


@pytest.mark.timeout(40)
def test_a_worker_that_cannot_send_its_batch_ends_the_wait() -> None:
    from gptexp.data.batches import loader

    with pytest.raises(RuntimeError, match="DataLoader worker"):
        next(iter(loader(Unsendable(), workers=1, pin=False)))


def test_a_dead_worker_gives_one_line_with_a_remedy(train_here: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    from gptexp.machine.lightning import pl

    def die(*_: Any, **__: Any) -> None:
        raise RuntimeError("DataLoader worker (pid 9) is killed by signal: Bus error. It is possible that")

    monkeypatch.setattr(pl.Trainer, "fit", die)
    with pytest.raises(
        ValueError, match=r"^data\.num_workers=2: DataLoader worker .* Bus error; .*/dev/shm.*num_workers=0"
    ):
        train_here(*TINY_GPT, "data.num_workers=2")


def test_a_failed_compilation_gives_one_line_with_a_remedy() -> None:
    from gptexp.training import run

    theirs = type("InductorError", (RuntimeError,), {"__module__": "torch._inductor.exc"})
    error = theirs("InvalidCxxCompiler: No working C++ compiler found\n\nSet TORCHDYNAMO_VERBOSE=1")
    experiment = Mock(model=nn.Linear(1, 1), compiled=(True, "as asked"), config=compose(["trainer=cpu"]))
    experiment.trainer.fit.side_effect = error
    expected = r"^trainer\.compile: torch cannot .* \(InvalidCxx.* found\); use trainer\.compile=false, .*delete /"
    with pytest.raises(ValueError, match=expected):
        run.fit(experiment)
    experiment.compiled = (False, "too short")
    with pytest.raises(theirs):
        run.fit(experiment)
