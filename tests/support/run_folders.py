"""Run folders like those of training, created without training."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

SETTINGS: dict[str, Any] = {
    "name": "mini_gpt-pydocs",
    "seed": 1,
    "resume": None,
    "init_from": None,
    "model": {"kind": "gpt", "block_size": 64, "n_layer": 2, "n_head": 2, "n_embd": 32, "position": "learned"},
    "tokenizer": {"kind": "char"},
    "data": {
        "kind": "pydocs",
        "val_bytes": 2048,
        "global_batch_size": 8,
        "micro_batch_size": None,
        "num_workers": 0,
    },
    "optimizer": {"kind": "adamw", "lr": 0.001},
    "schedule": {"kind": "cosine", "warmup_steps": None},
    "trainer": {
        "max_steps": 100,
        "val_every_steps": 10,
        "log_every_steps": 10,
        "accelerator": "auto",
        "devices": "auto",
        "num_nodes": 1,
        "strategy": "auto",
        "precision": "auto",
        "compile": False,
    },
    "callbacks": {"checkpoint": {"every_steps": None}, "samples": {"tokens": 8}, "plugins": {}},
    "logger": {"tensorboard": True, "plugins": {}},
    "paths": {"data": "data", "logs": "logs", "cache": "data/cache"},
}
COLUMNS = ["step", "train/loss", "val/loss", "val/bpb", "val/perplexity", "lr", "grad_norm", "tokens_per_second", "mfu"]


def nested(**changes: Any) -> dict[str, Any]:
    """SETTINGS with changes; `model__n_layer=3` sets model.n_layer."""
    settings: dict[str, Any] = json.loads(json.dumps(SETTINGS))
    for name, value in changes.items():
        *groups, leaf = name.split("__")
        place = settings
        for group in groups:
            place = place.setdefault(group, {})
        place[leaf] = value
    return settings


def make_run(
    folder: Path,
    bpb: float | None = 2.0,
    *,
    curve: Callable[[float], float] | None = None,
    rate: float = 10_000.0,
    parameters: int = 50_000,
    result: dict[str, Any] | None = None,
    sample: str = "The cat sat.",
    seconds_column: bool = False,
    sha: str = "a" * 64,
    val_tokens: int = 2041,
    asked: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A finished run whose val/bpb is `bpb` at the end, and `curve(step / steps)` above it before.

    result: replaces parts of result.json. The seed and the settings come by `changes`. asked: the setting of trainer
    that gives the length, which was resolved to trainer.max_steps.
    """
    settings = nested(**changes)
    folder.mkdir(parents=True, exist_ok=True)
    stored = settings if asked is None else {**settings, "trainer": {**settings["trainer"], "max_steps": None, **asked}}
    (folder / "config.yaml").write_text(yaml.safe_dump(stored, sort_keys=False, allow_unicode=True), encoding="utf-8")
    steps = settings["trainer"]["max_steps"]
    tokens = steps * settings["data"]["global_batch_size"] * settings["model"]["block_size"]
    metrics = {"val/loss": bpb and bpb * math.log(2), "val/bpb": bpb, "val/perplexity": bpb and 2**bpb}
    found = {
        "status": "completed",
        "metrics": metrics,
        "best": {**metrics, "step": steps},
        "val": {"bytes": 2047, "tokens": val_tokens, "nats": 7708.9, "text_sha256": sha},
        "steps": steps,
        "tokens": tokens,
        "seconds": round(1.5 * tokens / rate, 3),
        "training_seconds": round(tokens / rate, 3),
        "tokens_per_second": rate,
        "parameters": parameters,
        "resumed_from": None,
        **({} if asked is None else {"length": {"asked": asked, "max_steps": steps}}),
        **(result or {}),
    }
    (folder / "result.json").write_text(json.dumps(found), encoding="utf-8")
    _write_curve(
        folder, bpb, curve or (lambda t: 1 / (t + 0.2) - 1 / 1.2), settings, tokens / steps, rate, seconds_column
    )
    (folder / "samples.md").write_text(
        f"## step 1\n\n````text\nearly\n````\n\n## step {steps}\n\n````text\n{sample}\n````\n\n", encoding="utf-8"
    )
    return folder


def _write_curve(
    folder: Path,
    bpb: float | None,
    curve: Callable[[float], float],
    settings: dict[str, Any],
    tokens_per_step: float,
    rate: float,
    seconds_column: bool,
) -> None:
    steps, every = settings["trainer"]["max_steps"], settings["trainer"]["val_every_steps"]
    columns = [*COLUMNS, "seconds"] if seconds_column else COLUMNS
    with (folder / "metrics.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
        writer.writeheader()
        for step in range(every, steps + 1, every):
            value = (math.nan if bpb is None else bpb) + curve(step / steps)
            row = {"step": step, "train/loss": value, "val/bpb": value, "val/loss": value * math.log(2)}
            row |= {"val/perplexity": 2**value, "lr": 1e-3, "tokens_per_second": rate}
            writer.writerow(row | ({"seconds": step * tokens_per_step / rate} if seconds_column else {}))


def sweep_of(folder: Path, *names: str, search: dict[str, Any] | None = None) -> Path:
    """The folder of a sweep with these jobs, without their folders."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {"format": 1, "name": folder.name, "search": search, "jobs": [{"name": name} for name in names]}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(stored), encoding="utf-8")
    return folder


def age(folder: Path, seconds: float) -> None:
    """Make a run appear to have finished this many seconds earlier."""
    path = folder / "result.json"
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))
