"""lm-evaluation-harness scores a run as gptexp's own scorer and independent computations do."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lm_eval")  # an extra, whose packages need newer versions than the lowest that gptexp allows

import datasets
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from gptexp.commands import lm_eval as command
from gptexp.compose.composition import compose
from gptexp.evaluate import main
from gptexp.evaluation.harness import HarnessModel
from gptexp.evaluation.scoring import score_stream
from gptexp.generate import main as generate
from support.emulated_device import emulated
from support.runs import TINY, TINY_GPT, story
from support.trained_runs import PLAIN, Evaluate, opened

TOKENIZERS = {"gpt": "char", "words": "bpe", "bytes": "byte", "gpt2": "gpt2"}
BLOCK = 16
TASKS = Path(str(find_spec("lm_eval").origin)).parent / "tasks"  # type: ignore[union-attr]


@pytest.fixture(scope="session")
def four(runs: Path) -> Path:
    """The folder of `runs`, with a run for each of the tokenizers."""
    from gptexp.training.experiment import run_experiment

    steps = ["trainer.max_steps=8", "trainer.val_every_steps=8", "data.path=story.txt", "optimizer.lr=0.02"]
    with pytest.MonkeyPatch.context() as here:
        here.chdir(runs)
        for run in ("bytes", "gpt2"):
            own = ["model.position=learned", f"tokenizer={TOKENIZERS[run]}"]
            run_experiment(compose([*TINY, *TINY_GPT, *steps, *own]), Path(run))
    return runs


@pytest.fixture
def here(four: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(four)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", four / "datasets")
    own_tasks = partial(TaskManager, include_defaults=False)  # does not read the thousands of the harness
    monkeypatch.setattr("gptexp.evaluation.harness.TaskManager", own_tasks)
    monkeypatch.setattr("lm_eval.tasks.TaskManager", own_tasks)
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")  # the harness would start processes for its bootstrap
    return four


def asked(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(kind, {}, one, 0) for one in arguments]


def one_by_one(run: str, tokens: list[int], n_scored: int, block_size: int = BLOCK) -> tuple[float, bool]:
    """Log-likelihood of the last tokens, each from a separate forward pass, and whether all are the likeliest."""
    model, _ = opened(run)
    tokens, total, greedy = tokens[-(block_size + 1) :], 0.0, True
    with torch.no_grad():
        for i in range(len(tokens) - n_scored, len(tokens)):
            log_p = model(torch.tensor([tokens[:i]]))[0, -1].log_softmax(-1)
            total += log_p[tokens[i]].item()
            greedy &= int(log_p.argmax()) == tokens[i]
    return total, greedy


PAIRS = [
    ("A grey cat sleeps on", " the"),
    ("A grey cat sleeps on the warm oven, as cats do! The baker", " counts"),  # longer than block_size
    ("The ", "cat"),  # the space belongs to the continuation
    ("", "The cat"),
    ("   ", "The"),
    ("The", ""),
    ("nobody answers", "."),
]


@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("run", TOKENIZERS)
def test_log_likelihoods_are_those_of_the_model_token_by_token(here: Path, run: str, batch: int | None) -> None:
    model = HarnessModel(run, ".", batch_size=batch)
    found = model.loglikelihood(asked("loglikelihood", *PAIRS), disable_tqdm=True)
    _, tokenizer = opened(run)
    for (context, continuation), (value, greedy) in zip(PAIRS, found, strict=True):
        seen = context.rstrip()
        before = tokenizer.encode(seen).tolist()
        after = tokenizer.encode(context + continuation).tolist()[len(before) :]
        start = [] if before else [tokenizer.eot if tokenizer.eot is not None else tokenizer.encode("\n").tolist()[0]]
        expected, is_greedy = one_by_one(run, [*start, *before, *after], len(after)) if continuation else (0.0, True)
        assert value == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert greedy == is_greedy


@pytest.mark.parametrize("run", TOKENIZERS)
def test_rolling_log_likelihoods_are_those_of_the_sliding_window(here: Path, run: str) -> None:
    """In whole windows the harness agrees with a stride of block_size; a last short window gets more context."""
    model, (own, tokenizer) = HarnessModel(run, "."), opened(run)
    start = model.eot_token_id
    assert start == (tokenizer.eot if tokenizer.eot is not None else tokenizer.encode("\n").tolist()[0])
    tokens = tokenizer.encode(story(9)).tolist()
    whole = range(len(tokens) // BLOCK * BLOCK, 0, -BLOCK)
    cut = next(n for n in whole if tokenizer.encode(tokenizer.decode(tokens[:n])).tolist() == tokens[:n])
    texts = [tokenizer.decode(tokens[:cut]), PLAIN[:9], story(9)]
    found = model.loglikelihood_rolling(asked("loglikelihood_rolling", *((text,) for text in texts)), disable_tqdm=True)
    for text, value in zip(texts[:2], found, strict=False):
        pieces = [torch.tensor([start, *tokenizer.encode(text).tolist()]).numpy()]
        score = score_stream(own, tokenizer, pieces, block_size=BLOCK, stride=BLOCK)
        assert value == pytest.approx(-score.nats, rel=1e-6)
    expected = sum(
        one_by_one(run, [start, *tokens[: min(i + BLOCK, len(tokens))]], min(BLOCK, len(tokens) - i))[0]
        for i in range(0, len(tokens), BLOCK)
    )
    assert found[2] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("run", TOKENIZERS)
def test_greedy_texts_are_those_of_generate(here: Path, run: str, capsys: pytest.CaptureFixture[str]) -> None:
    prompts, options = ["A grey cat", "The baker counts her loaves before", ""], {"until": [], "max_gen_toks": 24}
    model = HarnessModel(run, ".", batch_size=2)
    found = model.generate_until(asked("generate_until", *((p, options) for p in prompts)), disable_tqdm=True)
    for prompt, text in zip(prompts, found, strict=True):
        generate([run, "--logs", ".", "--prompt", prompt, "--temperature", "0", "--max-new-tokens", "24"])
        assert prompt + text == capsys.readouterr().out.removesuffix("\n")
    stop = found[0][3:5]
    (stopped,) = model.generate_until(asked("generate_until", (prompts[0], {"until": stop, "max_gen_toks": 24})))
    assert stopped == found[0][: found[0].index(stop)]


def test_an_exported_run_has_the_numbers_of_transformers_in_the_harness(here: Path) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("transformers")
    from lm_eval.models.huggingface import HFLM

    from gptexp.export import main as export

    export(["gpt2", "--logs", ".", "--out", "exported"])
    ours, theirs = HarnessModel("gpt2", "."), HFLM("exported", device="cpu", dtype="float32", batch_size=2)
    pairs = asked("loglikelihood", *(pair for pair in PAIRS if pair[0].strip() == pair[0] and pair[1]))
    for found, one in zip(ours.loglikelihood(pairs), theirs.loglikelihood(pairs), strict=True):
        assert found[0] == pytest.approx(one[0], rel=1e-5)
        assert found[1] == one[1]
    texts = asked("loglikelihood_rolling", (story(9),), (PLAIN,))
    assert ours.loglikelihood_rolling(texts) == pytest.approx(theirs.loglikelihood_rolling(texts), rel=1e-5)
    starts = asked("generate_until", *((start, {"until": ["."], "max_gen_toks": 6}) for start in ("A grey cat", "The")))
    assert ours.generate_until(starts) == theirs.generate_until(starts)


def test_drawn_texts_follow_from_the_seed_and_not_from_the_batch(here: Path) -> None:
    options = {"until": ["\n\n"], "max_gen_toks": 12, "do_sample": True, "temperature": 1.0, "top_k": 20}
    requests = asked("generate_until", *(("A grey cat", options) for _ in range(5)))
    found = []
    for batch in (1, 4):
        torch.manual_seed(3)
        found.append(HarnessModel("gpt", ".", batch_size=batch).generate_until(requests, disable_tqdm=True))
    assert found[0] == found[1]
    assert len(set(found[0])) > 1


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def task(folder: Path, name: str, file: Path, *lines: str) -> None:
    """Write a task with local data into a folder."""
    folder.mkdir(exist_ok=True)
    data = ["dataset_path: json", "dataset_name: null", f"dataset_kwargs: {{data_files: {{test: {file}}}}}"]
    text = "\n".join([*lines, f"task: {name}", *data, "test_split: test", ""])
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


LAMBADA = [{"text": "A grey cat sleeps on the"}, {"text": "nobody answers. The baker counts"}, {"text": "The cat t"}]
SWAG = [
    {"activity_label": "The cat", "ctx_a": "The sun [title] ", "ctx_b": "the CAT", "label": "0",
     "endings": ["the warm [step] oven", "a loaf.", " as cats do!"]},
    {"activity_label": "The baker", "ctx_a": "She counts.", "ctx_b": "", "label": "1", "endings": ["a thief", "eight"]},
]  # fmt: skip


@pytest.mark.parametrize("run", ["bytes", "words"])
def test_own_lambada_and_hellaswag_equal_those_of_the_harness(here: Path, evaluate: Evaluate, run: str) -> None:
    """The harness's own definitions of the tasks, with local data."""
    files = {"lambada": jsonl(here / "lambada.jsonl", *LAMBADA), "hellaswag": jsonl(here / "swag.jsonl", *SWAG)}
    task(here / "tasks", "own_lambada", files["lambada"], f"include: {TASKS}/lambada/lambada_openai.yaml")
    included = f"include: {TASKS}/hellaswag/hellaswag.yaml"
    task(here / "tasks", "own_swag", files["hellaswag"], included, "training_split: null", "validation_split: null")
    found = evaluate(run, "--tasks", "own_lambada,own_swag", "--include-path", "tasks")
    lambada, swag = (evaluate(run, f"--{name}", str(file)) for name, file in files.items())
    by_harness = found["tasks"]["own_lambada"]
    assert by_harness["perplexity,none"] == pytest.approx(lambada["perplexity"], rel=1e-5)
    assert by_harness["acc,none"] == lambada["accuracy"]
    assert found["tasks"]["own_swag"]["acc,none"] == swag["acc"]
    assert found["tasks"]["own_swag"]["acc_norm,none"] == swag["acc_norm"]
    assert found["step"] == {"bytes": 8, "words": 20}[run]


def test_the_bits_per_byte_of_a_document_are_those_of_its_text(
    here: Path, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The harness asks git and pip about the machine; git then complains outside a repository.
    monkeypatch.setattr(subprocess, "check_output", lambda *_, **__: pytest.fail("a program was started"))
    texts = [story(2), story(5)]
    file = jsonl(here / "documents.jsonl", *({"text": text} for text in texts))
    task(
        here / "tasks",
        "documents",
        file,
        "output_type: loglikelihood_rolling",
        'doc_to_text: ""',
        'doc_to_target: "{{text}}"',
        "metric_list: [{metric: bits_per_byte}]",
    )
    found = evaluate("gpt", "--tasks", "documents", "--include-path", "tasks")
    values = HarnessModel("gpt", ".").loglikelihood_rolling(asked("loglikelihood_rolling", *((t,) for t in texts)))
    size = sum(len(text.encode()) for text in texts)
    assert found["tasks"]["documents"]["bits_per_byte,none"] == pytest.approx(-sum(values) / size / math.log(2))


def test_the_command_of_the_harness_knows_the_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task(
        here / "tasks",
        "copying",
        jsonl(here / "copying.jsonl", {"start": "A grey cat"}, {"start": "The baker"}),
        "output_type: generate_until",
        'doc_to_text: "{{start}}"',
        'doc_to_target: " sleeps"',
        "generation_kwargs: {until: ['.'], max_gen_toks: 9}",
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]",
    )
    line = "--model gptexp --model_args run=words,logs=. --tasks copying --include_path tasks --batch_size auto"
    command.main(line.split())
    assert re.search(r"\|copying\|.*\|exact_match\|↑", capsys.readouterr().out)


def test_code_of_a_folder_runs_only_for_tasks_that_are_named(here: Path, evaluate: Evaluate) -> None:
    folder = here / "strange"
    file = jsonl(here / "lambada.jsonl", *LAMBADA)
    task(folder, "quiet", file, f"include: {TASKS}/lambada/lambada_openai.yaml")
    task(folder, "loud", file, "output_type: loglikelihood", "doc_to_text: !function loud.text")
    (folder / "loud.py").write_text("open('executed', 'w').close()\ntext = str\n", encoding="utf-8")
    evaluate("gpt", "--tasks", "quiet", "--include-path", "strange")
    assert not Path("executed").exists()


def test_a_device_gives_the_log_likelihoods_of_the_cpu(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def values(model: HarnessModel) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = model.loglikelihood(asked("loglikelihood", *PAIRS), disable_tqdm=True)
        return found

    expected = values(HarnessModel("words", ".", device="cpu"))
    with emulated(monkeypatch):
        for found, one in zip(values(HarnessModel("words", ".")), expected, strict=True):
            assert found[0] == pytest.approx(one[0], rel=1e-5)
            assert found[1] == one[1]


Refused = Callable[[], object]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: HarnessModel("gpt", ".", batch_size="x"), "batch_size=x: must be at least 1, or auto"),
        (lambda: HarnessModel("gpt", ".", device="tpu"), "--device=tpu: no such device; available: "),
        (lambda: HarnessModel("none", "."), "none: no such run; give a run folder"),
        (
            lambda: HarnessModel("gpt", ".").loglikelihood(asked("loglikelihood", ("A", " cat" * 5))),
            "a continuation has 20 tokens, more than block_size=16",
        ),
        (
            lambda: HarnessModel("gpt", ".").generate_until(asked("generate_until", ("A", {"num_beams": 4}))),
            "num_beams=4: gptexp can't generate with it",
        ),
    ],
)
def test_what_the_model_lacks_is_refused_by_name(here: Path, call: Refused, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "no_such_task"], "--tasks=no_such_task: no such task; `gptexp lm-eval ls tasks` lists them"),
        (["--tasks", "x", "--max-tokens", "9"], "--max-tokens=9: applies only to the corpus of the run, not to x"),
        (["--include-path", "tasks"], "--include-path=tasks: requires --tasks NAMES"),
        (["--tasks", "x", "--include-path", "nowhere"], "--include-path=nowhere: no such folder"),
    ],
)
def test_wrong_options_are_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: Sequence[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["gpt", "--logs", ".", *arguments])
    assert stop.value.code == 2
    assert f"error: {message}" in capsys.readouterr().err
