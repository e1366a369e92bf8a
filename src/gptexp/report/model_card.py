"""The README.md of an exported model: what it is, how to use it, its metrics, and how to train it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

from gptexp.config.kinds import kinds_in
from gptexp.runs.layout import run_folder
from gptexp.runs.provenance import Provenance, provenance_files, read_provenance
from gptexp.runs.result import Metrics, Result, find_result
from gptexp.util.text import clock, literal, visible, without_passwords
from gptexp.util.yaml_files import yaml_text

if TYPE_CHECKING:
    from gptexp.runs.checkpoint import Checkpoint  # imports torch

HEADER = """---
library_name: {library}
pipeline_tag: text-generation
tags:
- gptexp
---
"""
GROUPS = ("seed", "model", "tokenizer", "data", "objective", "optimizer", "schedule", "finetune", "trainer")


def model_card(source: Path, checkpoint: Checkpoint, *, library: str, architecture: str, use: str, size: int) -> str:
    """Return the page as Markdown. Text of the run, which may be untrusted, becomes no markup.

    source: the checkpoint, or the folder of a model that was not trained here. library: that runs the model.
    use: a program or a command. size: number of parameters.
    """
    folder = run_folder(source)
    result = find_result(folder) if folder is not None else Result()
    trained = list(_provenance(folder))
    settings = checkpoint.config
    parts = [
        HEADER.format(library=library),
        f"# {literal(str(settings.get('name', 'model')))}\n",
        f"A language model with {size:,} parameters in the form of {architecture}, exported by gptexp.\n",
        _section("Use", _code(use)),
        _section("Metrics", _metrics(checkpoint.step, result)),
        _section("Training", _table(_facts(source, checkpoint, result, trained))),
        _section("Repeat it", "".join(_repeat(trained))),
        _section("Settings", _code(yaml_text({name: settings[name] for name in GROUPS if name in settings}))),
    ]
    return without_passwords("\n".join(part for part in parts if part))


def _provenance(folder: Path | None) -> Iterator[Provenance]:
    for path in provenance_files(folder) if folder is not None else ():
        with suppress(OSError, ValueError):
            yield read_provenance(path)


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}" if text else ""


def _code(text: str) -> str:
    """Indented lines, which no text inside can end."""
    return indent(visible(text).strip("\n"), "    ") + "\n"


def _plain(text: str) -> str:
    """The text without markup; / and : can only begin a link."""
    text = without_passwords(text)
    link = "//" in text or "www." in text.lower()
    return literal(text) if link else literal(text).replace("&#47;", "/").replace("&#58;", ":")


def _table(rows: Mapping[str, str]) -> str:
    lines = [f"| {_plain(name)} | {_plain(text)} |\n" for name, text in rows.items() if text]
    return "".join(["| | |\n|---|---|\n", *lines])


def _metrics(step: int, result: Result) -> str:
    """The metrics of the exported step, if a validation came after it."""
    found: Metrics = result.metrics if result.steps == step else {}
    if not found and result.best.get("step") == step:
        found = {name: value for name, value in result.best.items() if name != "step"}
    rows = {name: f"{value:.6g}" for name, value in found.items() if value is not None}
    counts = [f"{result.val[name]:,} {name}" for name in ("bytes", "tokens") if type(result.val.get(name)) is int]
    text = f"\nOf the validation text after step {step:,}" + (f": {', '.join(counts)}.\n" if counts else ".\n")
    return f"{_table(rows)}{text}" if rows else ""


def _facts(source: Path, checkpoint: Checkpoint, result: Result, trained: list[Provenance]) -> dict[str, str]:
    if source.is_dir():
        return {"origin": f"the folder {source.name}, not trained by gptexp"}
    last = trained[-1] if trained else Provenance()
    commit = "" if last.git is None else f", commit {last.git.commit}{' with changes' if last.git.diff else ''}"
    code = result.code_sha256 or last.code_sha256
    hardware = [str(last.hardware.get(name)) for name in ("system", "cpu") if last.hardware.get(name)]
    return {
        "data": kinds_in(checkpoint.config).get("data", ""),
        "fingerprint of the data": str(checkpoint.data.get("fingerprint") or ""),
        "started from": str(checkpoint.config.get("init_from") or ""),
        "seed": str(checkpoint.config.get("seed", "")),
        "steps": f"{checkpoint.step:,}",
        "tokens": f"{result.tokens:,}" if result.tokens and result.steps == checkpoint.step else "",
        "training time": clock(result.training_seconds) if result.training_seconds else "",
        "precision": result.precision or "",
        "hardware": ", ".join([*hardware, *last.hardware.get("gpus", [])]),
        "code": f"SHA-256 {code}{commit}" if code else "",
        "versions": ", ".join(f"{name} {version}" for name, version in last.versions.items()),
    }


def _repeat(trained: list[Provenance]) -> Iterator[str]:
    commands = [found.command for found in trained if found.command]
    if commands:
        yield _code("\n".join(commands))
        yield "\n`gptexp verify RUN` trains a run again, and says whether its numbers are bitwise identical.\n"
