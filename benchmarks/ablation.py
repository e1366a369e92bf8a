"""Measure what single changes contribute: one table of recent ideas, and one of the parts of speedrun_cpu.

    python benchmarks/ablation.py axes --shakespeare input.txt [--seeds 1,2,3,4,5] [--only none,ngram_4]
    python benchmarks/ablation.py speedrun --shakespeare input.txt

Each change is a sweep over the seeds with `hydra/launcher=cores`, so that an interrupted program continues where it
stopped. Then `gptexp compare` prints the table, with p-values corrected for all changes. With five seeds the tables
take about half an hour and ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

Changes = dict[str, list[str]]

# speedrun_cpu without n-grams: every idea is off.
PLAIN = ["experiment=speedrun_cpu", "model.ngram=1", "optimizer.lr=5e-3", "trainer.max_steps=270"]
PLAIN += ["model.n_layer=2", "model.n_head=4", "model.n_embd=128"]
AXES: Changes = {
    "none": [],
    "adamw": ["optimizer=adamw"],
    "window": ["model.window=SL"],
    "ngram_2": ["model.ngram=2"],
    "ngram_3": ["model.ngram=3"],
    "ngram_4": ["model.ngram=4"],
    "split_qkv": ["optimizer.split_qkv=true"],
    "normuon": ["optimizer.normuon=true"],
    "embedding_lr": ["optimizer.embedding_lr=1e-2"],
    "head_lr": ["optimizer.head_lr=1e-2"],
    "mup": ["model.parametrization=mup"],
}
PARTS: Changes = {
    "none": [],
    "adamw": ["optimizer=adamw"],
    "no_ngrams": ["model.ngram=1"],
    "ngram_2": ["model.ngram=2"],
    "ngram_3": ["model.ngram=3"],
    "ngram_4": ["model.ngram=4"],
    "no_qk_norm": ["model.qk_norm=false"],
    "learned_positions": ["model.position=learned"],
    "constant_rate": ["schedule=constant"],
    "tied_weights": ["model.tie_weights=true"],
    "gelu": ["model.activation=gelu", "model.mlp_ratio=4"],
    "relu2": ["model.activation=relu2", "model.mlp_ratio=4"],
    "gpt2_init": ["model.init=gpt2"],
    "cosine": ["schedule=cosine", "schedule.min_lr_ratio=0.1"],
    "layernorm": ["model.norm=layernorm"],
    "two_layers": ["model.n_layer=2"],
    "width_128": ["model.n_embd=128", "model.n_head=4"],
}
TABLES = {"axes": (PLAIN, AXES), "speedrun": (["experiment=speedrun_cpu"], PARTS)}


def main() -> None:
    """Train every change, then print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--shakespeare", type=Path, required=True, help="the text of Tiny Shakespeare")
    parser.add_argument("--seeds", default="1,2,3,4,5", help="seeds of each change (default: %(default)s)")
    parser.add_argument("--only", help="names of changes, separated by commas (default: all)")
    options = parser.parse_args()
    base, changes = TABLES[options.table]
    names = options.only.split(",") if options.only else list(changes)
    if unknown := [name for name in names if name not in changes]:
        parser.error(f"--only: unknown change {unknown[0]}; choose from {', '.join(changes)}")
    common = [f"data.path={options.shakespeare.absolute()}", f"seed={options.seeds}", "hydra/launcher=cores"]
    for name in names:
        _run("train", "-m", *base, *common, *changes[name], f"sweep.name={options.table}_{name}")
    folders = [f"logs/sweeps/{options.table}_{name}" for name in names]
    _run("compare", *folders, "--metric", "val/loss")


def _run(module: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", f"gptexp.{module}", *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
