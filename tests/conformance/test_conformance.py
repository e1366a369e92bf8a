"""The conformance table: every row is shown, a wrong number fails, and a crash fails only its row."""

from __future__ import annotations

import io
import json
import math
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from gptexp.compose.composition import compose
from gptexp.config import GPTConfig
from gptexp.conformance import areas, command_line, text, trained, weights
from gptexp.conformance.check import Area, Check, Inputs, Need, Status, Value, agree, run_check, why_skipped
from gptexp.conformance.table import format_value, markdown, print_area
from gptexp.generation.streaming import plain_text
from gptexp.models.gpt import GPT
from gptexp.runs.finding import find_checkpoint
from gptexp.util.signals import Interrupted
from gptexp.util.text import install_extra
from support.runs import command, story

Captured = pytest.CaptureFixture[str]
Judge = Callable[..., int]
Train = Callable[..., dict[str, Any]]
ROWS = [check for area in areas.AREAS for check in area.checks]


def a_check(name: str = "two", published: Value = 2, **settings: Any) -> Check:
    return Check(name=name, published=published, source="a book", **{"compute": lambda _: 2, **settings})


def crash(_: Inputs) -> int:
    raise KeyError("no such\nthing")


def interrupt(_: Inputs) -> int:
    raise Interrupted(signal.SIGTERM)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Judge:
    """Run the command with these checks in an empty current directory; return its exit code."""
    monkeypatch.chdir(tmp_path)

    def judge(*checks: Check, arguments: Sequence[str] = ()) -> int:
        monkeypatch.setattr(areas, "AREAS", (Area(title="Numbers", checks=checks),))
        with pytest.raises(SystemExit) as stop:
            command_line.main(list(arguments))
        return int(stop.value.code or 0)

    return judge


def test_fast_shows_every_row_in_table_and_report_without_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")  # each name has its line there
    with pytest.raises(SystemExit) as stop:
        command_line.main(["--fast", "--out", "table.md"])
    out = capsys.readouterr().out
    assert not stop.value.code, out
    report = (tmp_path / "table.md").read_text(encoding="utf-8")
    for check in ROWS:
        assert check.name in out
        assert f"| {check.name} |".replace("<|endoftext|>", "&lt;\\|endoftext\\|&gt;") in report
    slow = sum(bool(check.needs - {Need.scipy, Need.vocabulary}) for check in ROWS)
    counts = f"{len(ROWS) - slow} passed · 0 failed · {slow} skipped"
    assert counts in out.splitlines()[-1]
    assert f"- result: {counts}\n" in report
    assert str(tmp_path) not in report
    assert str(Path.home()) not in report
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]


def test_a_wrong_published_value_fails_with_exit_code_1(table: Judge, capsys: Captured, tmp_path: Path) -> None:
    assert table(a_check()) == 0
    assert table(a_check(), a_check("five", 5), arguments=["--out", "table.md"]) == 1
    assert "1 passed · 1 failed · 0 skipped" in capsys.readouterr().out
    assert "| five | 5 | 2 | equal | fail | a book |" in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_a_crash_fails_its_row_and_the_next_row_is_computed(table: Judge, capsys: Captured) -> None:
    assert table(a_check("breaks", compute=crash), a_check()) == 1
    out = capsys.readouterr().out
    row = out.index("breaks")
    assert "fail" in out[row:].splitlines()[0]
    assert "KeyError: 'no such\\nthing'" in out[row:]
    assert "1 passed · 1 failed · 0 skipped" in out


def test_a_skipped_row_is_not_a_failure(table: Judge, capsys: Captured) -> None:
    assert table(a_check(needs=frozenset({Need.text}))) == 0
    assert "give --shakespeare PATH" in capsys.readouterr().out


def test_a_signal_ends_the_program_and_keeps_the_last_report(table: Judge, capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "table.md").write_text("the last one", encoding="utf-8")
    assert table(a_check(compute=interrupt), arguments=["--out", "table.md"]) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "interrupted; no table was written\n"
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == "the last one"


def test_conformance_writes_a_file_only_on_request(table: Judge, capsys: Captured, tmp_path: Path) -> None:
    assert table(a_check()) == 0
    assert "1 passed · 0 failed · 0 skipped" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        (["--shakespeare", "nowhere.txt"], "error: --shakespeare=nowhere.txt: no such file; get it from https://"),
        (
            ["--shakespeare", "story.txt"],
            "error: --shakespeare=story.txt: is not Tiny Shakespeare; get it from https://",
        ),
        (["--weights", "nowhere"], "error: nowhere: no such run"),
        (["--lambada", "story.txt"], "error: --lambada=story.txt: needs the weights of GPT-2; add --weights FOLDER"),
        (["--fast", "--out", "nowhere/table.md"], "error: --out=nowhere/table.md: must be a file in a folder that"),
    ],
)
def test_wrong_input_gives_a_one_line_error(
    arguments: list[str], reported: str, workplace: Path, capsys: Captured
) -> None:
    with pytest.raises(SystemExit) as stop:
        command_line.main(arguments)
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert err.startswith(reported)
    assert err.count("\n") == 1
    assert not out
    assert [path.name for path in workplace.iterdir()] == ["story.txt"]


def test_a_missing_file_is_reported_without_importing_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from gptexp.conformance import command_line\n"
        "try: command_line.main(['--shakespeare', 'nowhere.txt'])\n"
        "except SystemExit as e: print(e.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "2 False\n"
    assert done.stderr.startswith("error: --shakespeare=nowhere.txt")


def test_numbers_agree_within_the_tolerance_and_nan_never_agrees() -> None:
    assert agree(2.5, 2.0, 0.5)
    assert not agree(2.51, 2.0, 0.5)
    assert agree((1, 2), (1, 2), 0)
    assert not agree((1, 2, 3), (1, 2), 9)
    assert not agree((1, 2.2), (1, 2), 0.1)
    assert not agree(math.nan, math.nan, math.inf)
    assert agree("a", "a", 0)
    assert not agree("1", 1, 9)


def test_skipped_rows_state_their_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path
    there = Inputs(scratch=path, shakespeare=path, weights=path, wikitext=path, lambada=path)
    fast = Inputs(scratch=tmp_path, fast=True, shakespeare=tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("gptexp.conformance.check.missing_packages", lambda: ["scipy"])
    monkeypatch.setattr("gptexp.tokenizers.gpt2.is_there", lambda: False)
    reasons = {need: why_skipped(a_check(needs=frozenset({need})), there) for need in Need}
    assert {need for need, reason in reasons.items() if reason} == {Need.gpu, Need.scipy, Need.vocabulary}
    assert reasons[Need.scipy] == 'needs scipy: pip install -e ".[compare]" in the checkout of gptexp'
    assert reasons[Need.vocabulary] == "needs GPT-2's vocabulary: " + install_extra("gpt2")
    assert why_skipped(a_check(needs=frozenset({Need.text})), fast) == "skipped by --fast: reads Tiny Shakespeare"
    assert why_skipped(a_check(needs=frozenset({Need.scipy})), fast) == reasons[Need.scipy]


def test_numbers_are_formatted_for_readers() -> None:
    assert format_value(1234567) == "1,234,567"
    assert format_value(2.481923) == "2.4819"
    assert format_value((31373, 995)) == "31373 995"
    assert format_value(" a b") == "“ a b”"
    assert format_value("1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5") == "1ce1664773c5…"


@pytest.mark.parametrize("width", [40, 80])
def test_the_table_fits_the_terminal(width: int, tmp_path: Path) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    for area in areas.AREAS:
        print_area(console, area, [run_check(check, Inputs(scratch=tmp_path, fast=True)) for check in area.checks[-1:]])
    assert max(map(len, console.export_text().splitlines())) <= width


def test_a_pipe_character_does_not_break_a_row_of_the_report(tmp_path: Path) -> None:
    check = a_check("a|b")
    area = Area(title="Numbers", checks=(check,))
    row = markdown([(area, [run_check(check, Inputs(scratch=tmp_path))])], {}).splitlines()[-1]
    assert row == "| a\\|b | 2 | 2 | equal | pass | a book |"


# ------------------------------------------------------------------------------- what is computed


@pytest.fixture
def story_inputs(tmp_path: Path) -> Inputs:
    path = tmp_path / "story.txt"
    path.write_text(story(200), encoding="utf-8")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Inputs(scratch=scratch, shakespeare=path)


def parts_of_story() -> tuple[str, str]:
    whole = story(200)
    cut = len(whole) * 9 // 10
    return whole[:cut], whole[cut:]


def test_counted_losses_equal_those_of_plain_python(story_inputs: Inputs) -> None:
    train, val = parts_of_story()
    size = len(set(train + val))
    singles, pairs, firsts = Counter(train[1:]), Counter(pairwise(train)), Counter(train[:-1])
    unigram = -sum(math.log(singles[c] / (len(train) - 1)) for c in val[1:]) / (len(val) - 1)
    assert text.uniform(story_inputs) == pytest.approx(math.log(size), abs=1e-5)
    assert text.unigram(story_inputs) == pytest.approx(unigram, abs=1e-5)
    for name, part in (("train", train), ("val", val)):
        nats = [math.log((pairs[a, b] + 1) / (firsts[a] + size)) for a, b in pairwise(part)]
        assert text.bigram(name)(story_inputs) == pytest.approx(-sum(nats) / len(nats), abs=1e-5)


def test_each_step_of_the_lecture_composes_and_adds_its_settings() -> None:
    steps = (trained.BIGRAM, trained.HEAD, trained.HEADS, trained.FEED_FORWARD, trained.RESIDUAL, trained.NORM)
    models: list[Any] = [compose([*step, *trained.QUIET]).model for step in steps]
    assert [model.kind for model in models] == ["bigram", *["gpt"] * 5]
    shapes = [(m.n_layer, m.n_head, m.mlp_ratio, m.residual, m.norm.name) for m in models[1:]]
    assert shapes == [
        (1, 1, 0, False, "none"),
        (1, 4, 0, False, "none"),
        (1, 4, 1, False, "none"),
        (3, 4, 4, True, "none"),
        (3, 4, 4, True, "layernorm"),
    ]


@pytest.mark.slow
def test_a_trained_check_scores_what_the_train_command_scores(story_inputs: Inputs, train_here: Train) -> None:
    settings = ["model=bigram", "model.block_size=16", "data.global_batch_size=4", "trainer.max_steps=5"]
    (Path.cwd() / "story.txt").write_text(story(200), encoding="utf-8")
    result = train_here(*settings, "data.val_bytes=null")
    assert trained.last_loss(*settings)(story_inputs) == pytest.approx(result["metrics"]["val/loss"], abs=1e-6)
    assert not list(story_inputs.scratch.glob("*/checkpoints")), "a run stayed behind"


def test_layers_can_use_the_initialization_of_torch() -> None:
    model = GPT(GPTConfig(block_size=8, n_layer=1, n_head=2, n_embd=64, tie_weights=False), 300)
    assert model.transformer.wte.weight.std().item() == pytest.approx(0.02, rel=0.05)
    trained.start_as_torch(model, 1)
    first = model.lm_head.weight.clone()
    assert model.transformer.wte.weight.std().item() == pytest.approx(1, rel=0.05)
    assert first.abs().max().item() == pytest.approx(64**-0.5, rel=0.01)  # uniform up to 1 / sqrt(n_embd)
    trained.start_as_torch(model, 1)
    assert torch.equal(model.lm_head.weight, first)
    trained.start_as_torch(model, 2)
    assert not torch.equal(model.lm_head.weight, first)


@pytest.mark.slow
def test_greedy_text_from_weights_equals_the_output_of_generate(train_here: Train, workplace: Path) -> None:
    result = train_here("tokenizer=byte", "model.n_layer=1", "model.n_head=2", "model.n_embd=16")
    inputs = Inputs(scratch=workplace, weights=find_checkpoint("run"))
    assert weights.parameters(inputs) == result["parameters"]
    options = ["--prompt", weights.PROMPT, "--temperature", "0", "--max-new-tokens", str(weights.NEW_TOKENS)]
    reported = command("generate", "run", *options, cwd=workplace).stdout
    assert reported == weights.PROMPT + plain_text(weights.greedy_text(inputs)) + "\n"
    lines = [json.dumps({"text": f"The cat saw the {word}"}) for word in ("grey mouse", "oven")]
    (workplace / "lambada.jsonl").write_text("\n".join(lines), encoding="utf-8")
    wikitext, lambada = workplace / "story.txt", workplace / "lambada.jsonl"
    files = Inputs(scratch=workplace, weights=inputs.weights, wikitext=wikitext, lambada=lambada)
    scored = {}
    for options in (["--text", "story.txt", "--stride", "16"], ["--lambada", "lambada.jsonl"]):
        scored[options[0]] = json.loads(command("evaluate", "run", *options, "--json", cwd=workplace).stdout)
    assert weights.wikitext_perplexity(files) == pytest.approx(scored["--text"]["perplexity"], rel=1e-6)
    for name in ("perplexity", "accuracy"):
        assert weights.lambada_score(name)(files) == pytest.approx(scored["--lambada"][name], rel=1e-6)


def test_unreadable_weights_fail_with_their_name(tmp_path: Path) -> None:
    check = a_check(compute=weights.parameters, needs=weights.NEEDS)
    outcome = run_check(check, Inputs(scratch=tmp_path, weights=tmp_path / "nowhere.ckpt"))
    assert outcome.status is Status.failed
    assert "nowhere.ckpt" in outcome.reason
