"""Trained models: the steps of the lecture from bigram to transformer, and the settings of nanoGPT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from torch import nn

from gptexp.compose.composition import compose
from gptexp.conformance.check import Area, Check, Inputs, Need
from gptexp.conformance.text import data_overrides
from gptexp.training.build import build_experiment
from gptexp.training.run import fit

Start = Callable[[nn.Module, int], None]  # model, seed
NEEDS = frozenset({Need.training, Need.text})
NEEDS_GPU = NEEDS | {Need.gpu}

# AdamW with the defaults of torch at a constant rate, as in the lecture.
LECTURE = (
    "seed=1337",
    "data.global_batch_size=32",
    "model.block_size=8",
    "optimizer.lr=1e-3",
    "optimizer.beta2=0.999",
    "optimizer.weight_decay=0.01",
    "schedule=constant",
    "schedule.warmup_steps=0",
    "trainer.gradient_clip=null",
    "trainer.max_steps=5000",
)
BIGRAM = (*LECTURE, "model=bigram", "optimizer.lr=1e-2", "trainer.max_steps=3000")
HEAD = (*LECTURE, "model=self_attention", "model.n_embd=32")
HEADS = (*HEAD, "model.n_head=4")
FEED_FORWARD = (*HEADS, "model.mlp_ratio=1", "model.activation=relu", "model.bias=true")
RESIDUAL = (*FEED_FORWARD, "model.n_layer=3", "model.residual=true", "model.mlp_ratio=4")
NORM = (*RESIDUAL, "model.norm=layernorm")
SCALED_UP = (
    *NORM,
    "model.block_size=256",
    "model.n_layer=6",
    "model.n_head=6",
    "model.n_embd=384",
    "model.dropout=0.2",
    "model.attn_dropout=0.2",
    "data.global_batch_size=64",
    "optimizer.lr=3e-4",
)

# Only the score of a run is used here.
QUIET = (
    "callbacks.samples.tokens=0",
    "callbacks.checkpoint.every_minutes=null",
    "logger.tensorboard=false",
    "trainer.log_every_steps=1000",
)


def last_loss(*overrides: str, start: Start | None = None) -> Callable[[Inputs], float]:
    """Return a function that trains and returns the validation loss after the last step. start: changes the weights."""
    return lambda inputs: _train(inputs, (*overrides, "trainer.val_every_steps=5000"), start)[0]


def best_loss(*overrides: str) -> Callable[[Inputs], float]:
    """Return a function that trains and returns the lowest validation loss."""
    return lambda inputs: _train(inputs, overrides)[1]


def start_as_torch(model: nn.Module, seed: int) -> None:
    """Initialize the weights as the layers of torch do, and as the lecture does, instead of as GPT-2 does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in model.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()


def _train(inputs: Inputs, overrides: tuple[str, ...], start: Start | None = None) -> tuple[float, float]:
    """Compose and train like `gptexp train`; return the last and the best loss over the whole validation part."""
    assert inputs.shakespeare is not None
    config = compose([*data_overrides(inputs.shakespeare, inputs.scratch), *overrides, *QUIET])
    with TemporaryDirectory(dir=inputs.scratch) as folder:
        experiment = build_experiment(config, Path(folder), console=Console(quiet=True))
        if start is not None:
            start(experiment.model, config.seed)
        fit(experiment)
    assert experiment.lit.score is not None
    assert experiment.record.best is not None
    return experiment.lit.score.metrics()["val/loss"], experiment.record.best["val/loss"]


def _lecture(
    name: str, published: float, commit: str, overrides: tuple[str, ...], needs: frozenset[Need] = NEEDS
) -> Check:
    trainer = "trainer=gpu" if Need.gpu in needs else "trainer=cpu"
    return Check(
        name=f"lecture: {name}",
        published=published,
        tolerance=0.05,
        source=f"Karpathy, Let's build GPT; ng-video-lecture {commit}",
        compute=last_loss(*overrides, trainer, start=start_as_torch),
        needs=needs,
    )


AREA = Area(
    title="Trained models",
    note="Validation loss in nats per character after the last step, here over the whole validation part in windows "
    "that do not overlap. The losses of the lecture are means over 200 random batches of one run. Its layers, here "
    "too, have the initialization of torch: with that of GPT-2, which is smaller, 5,000 steps without norms end at a "
    "higher loss.",
    checks=(
        Check(
            name="bigram against the counted one",
            published=2.4819,
            tolerance=0.005,
            source="counted, as above",
            compute=last_loss("experiment=shakespeare_bigram", "trainer=cpu"),
            needs=NEEDS,
        ),
        _lecture("bigram", 2.49, "bigram.py", BIGRAM),
        _lecture("one head of attention", 2.40, "10024b1", HEAD),
        _lecture("four heads", 2.28, "a6e0bee", HEADS),
        _lecture("feed-forward", 2.27, "97dd3f9 (2.24 there)", FEED_FORWARD),
        _lecture("three blocks, residual", 2.09, "5c3a2d2", RESIDUAL),
        _lecture("LayerNorm", 2.08, "0016836 (2.06 there)", NORM),
        _lecture("scaled up", 1.48, "482b15d", SCALED_UP, NEEDS_GPU),
        Check(
            name="nanoGPT: shakespeare_char on a CPU",
            published=1.898,
            tolerance=0.02,
            source="nanoGPT, README; its checkpoint over the whole part",
            compute=last_loss("experiment=shakespeare_char_cpu", "trainer=cpu"),
            needs=NEEDS,
        ),
        Check(
            name="nanoGPT: shakespeare_char on a GPU, best",
            published=1.4697,
            tolerance=0.03,
            source="nanoGPT, README",
            compute=best_loss("experiment=shakespeare_char_gpu", "trainer=gpu"),
            needs=NEEDS_GPU,
        ),
    ),
)
