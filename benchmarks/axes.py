"""Measure what each axis of the model and of the optimizer contributes, all at the same number of steps and tokens.

    python benchmarks/axes.py --shakespeare input.txt [--seeds 1,2,3,4,5] [--only none,ngram_4]

Each change is a sweep over the seeds with `hydra/launcher=cores`, so that an interrupted program continues where it
stopped. Then `gptexp compare` prints the table, with p-values corrected for all changes. All changes with five seeds
take about half an hour on two cores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

# speedrun_cpu without n-grams: every axis is off.
BASE = ["experiment=speedrun_cpu", "model.ngram=1", "optimizer.lr=5e-3", "trainer.max_steps=270"]
BASE += ["model.n_layer=2", "model.n_head=4", "model.n_embd=128"]
CHANGES = {
    "none": [],
    "adamw": ["optimizer=adamw"],
    "value_embeddings_alternate": ["model.value_embeddings=alternate"],
    "value_embeddings_all": ["model.value_embeddings=all"],
    "residual_scalars": ["model.residual_scalars=true"],
    "logit_softcap": ["model.logit_softcap=15"],
    "window": ["model.window=SL"],
    "ngram_2": ["model.ngram=2"],
    "ngram_3": ["model.ngram=3"],
    "ngram_4": ["model.ngram=4"],
    "split_qkv": ["optimizer.split_qkv=true"],
    "polar_express": ["optimizer.orthogonalization=polar_express"],
    "normuon": ["optimizer.normuon=true"],
    "cautious": ["optimizer.cautious=true"],
    "embedding_lr": ["optimizer.embedding_lr=1e-2"],
    "head_lr": ["optimizer.head_lr=1e-2"],
    "mup": ["model.parametrization=mup"],
    "mup_adamw": ["model.parametrization=mup", "optimizer=adamw"],
}


def main() -> None:
    """Train every change, then print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shakespeare", type=Path, required=True, help="the text of Tiny Shakespeare")
    parser.add_argument("--seeds", default="1,2,3,4,5", help="seeds of each change (default: %(default)s)")
    parser.add_argument("--only", default=",".join(CHANGES), help="names of changes (default: all)")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := [name for name in names if name not in CHANGES]:
        parser.error(f"--only: unknown change {unknown[0]}; choose from {', '.join(CHANGES)}")
    common = [f"data.path={options.shakespeare.absolute()}", f"seed={options.seeds}", "hydra/launcher=cores"]
    for name in names:
        _run("train", "-m", *BASE, *common, *CHANGES[name], f"sweep.name=axes_{name}")
    folders = [f"logs/sweeps/axes_{name}" for name in names]
    _run("compare", *folders, "--metric", "val/loss")


def _run(module: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", f"gptexp.{module}", *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
