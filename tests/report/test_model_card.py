"""The README.md of an exported folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from markdown_it import MarkdownIt

from gptexp.commands.export import export
from gptexp.config.conversion import from_plain
from gptexp.runs import checkpoint as ckpt
from gptexp.runs.opening import load
from gptexp.util.text import literal
from support.huggingface_folders import random_checkpoint
from support.runs import TINY_GPT

GPT2 = [*TINY_GPT, "model.position=learned"]
SMALL = {"kind": "gpt", "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8}
TrainHere = Callable[..., dict[str, Any]]


def card(run: str | Path, out: Path) -> str:
    export(str(run), out)
    return (out / "README.md").read_text(encoding="utf-8")


def blocks(page: str) -> list[str]:
    """The code of a page, as Markdown shows it."""
    return [token.content for token in MarkdownIt().parse(page.split("---\n", 2)[2]) if token.type == "code_block"]


def test_a_card_has_the_metrics_settings_and_command_of_the_run(train_here: TrainHere, tmp_path: Path) -> None:
    result = train_here(*GPT2, "seed=7", "trainer.max_steps=4", "trainer.val_every_steps=2")
    path = Path("run/provenance.json")
    provenance = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(provenance | {"command": "train logger.url=https://me:pass@host"}), encoding="utf-8")
    page = card("run", tmp_path / "out")
    header = yaml.safe_load(page.split("---\n")[1])
    assert header == {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["gptexp"]}
    for name, value in result["metrics"].items():
        assert f"| {name} | {value:.6g} |" in page
    assert f"after step 4: {result['val']['bytes']:,} bytes, {result['val']['tokens']:,} tokens." in page
    assert f"{result['parameters']:,} parameters in the form of GPT2LMHeadModel" in page
    assert "| seed | 7 |" in page
    for text in (provenance["data"]["fingerprint"], provenance["code_sha256"], provenance["versions"]["torch"]):
        assert literal(text) in page
    use, command, settings = blocks(page)
    assert 'from_pretrained("out")' in use
    assert command.strip() == "train logger.url=https://…@host"
    shown = yaml.safe_load(settings)
    stored = load(Path("run/checkpoints/last.ckpt")).config
    assert shown == {name: stored[name] for name in shown}
    assert {"seed", "model", "tokenizer", "data", "optimizer", "schedule", "trainer"} <= set(shown)


def test_the_program_of_a_card_runs(train_here: TrainHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    train_here(*GPT2, "trainer.max_steps=1")
    program = blocks(card("run", tmp_path / "out"))[0].replace("max_new_tokens=50", "max_new_tokens=3")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(program, found)
    assert isinstance(found["model"], torch.nn.Module)


def test_a_card_of_another_step_has_its_metrics_or_none(train_here: TrainHere, tmp_path: Path) -> None:
    train_here(*GPT2, "trainer.max_steps=4", "trainer.val_every_steps=2")
    result, last = Path("run/result.json"), Path("run/checkpoints/last.ckpt")
    stored = json.loads(result.read_text(encoding="utf-8"))
    result.write_text(json.dumps(stored | {"best": {"val/loss": 1.25, "step": 2}}), encoding="utf-8")
    best = load(last)
    best.step = 2
    ckpt.save(best, last.with_name("best.ckpt"))
    page = card("run/checkpoints/best.ckpt", tmp_path / "best")
    assert "| val/loss | 1.25 |" in page
    assert "Of the validation text after step 2" in page
    best.step = 3
    ckpt.save(best, last.with_name("other.ckpt"))
    assert "## Metrics" not in card("run/checkpoints/other.ckpt", tmp_path / "other")


def test_a_checkpoint_without_its_folder_has_a_card_without_metrics(tmp_path: Path) -> None:
    path = random_checkpoint(tmp_path / "ours.ckpt", from_plain("model", SMALL))
    page = card(path, tmp_path / "out")
    assert "## Metrics" not in page
    assert "## Repeat it" not in page
    assert "| steps | 7 |" in page
    stored = load(path)
    stored.config["init_from"] = "https://me:secret@host/run"
    ckpt.save(stored, path)
    assert "secret" not in card(path, tmp_path / "later")
    again = card(tmp_path / "out", tmp_path / "again")
    assert "| origin | the folder out, not trained by gptexp |" in again


def test_no_text_of_a_run_becomes_markup(tmp_path: Path) -> None:
    path = random_checkpoint(tmp_path / "ours.ckpt", from_plain("model", SMALL))
    evil = "x\n```\n# y\n<script>z</script> [a](javascript:b) | c\n---\n"
    stored = load(path)
    stored.config |= {"name": evil, "init_from": evil, "data": {"kind": evil, "path": evil}, "seed": 1}
    ckpt.save(stored, path)
    page = card(path, tmp_path / "out").split("---\n", 2)[2]
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(page)
    assert [t.tag for t in tokens if t.type == "heading_open"] == ["h1", "h2", "h2", "h2"]
    assert not [t for t in tokens if t.type in ("fence", "hr", "html_block")]
    inline = [child.type for token in tokens for child in token.children or ()]
    assert not {"link_open", "html_inline", "image"} & set(inline)
