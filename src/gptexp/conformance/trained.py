"""Models trained anew: the lecture's ladder from bigram to transformer, and nanoGPT's settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from gptexp.conformance.check import Area, Check, Inputs, Need
from gptexp.conformance.text import data_overrides

NEEDS = frozenset({Need.training, Need.text})
NEEDS_GPU = NEEDS | {Need.gpu}

# AdamW with torch's defaults at a constant rate, as the lecture has it.
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

# What a run leaves beside its score isn't wanted here.
QUIET = (
    "callbacks.samples.tokens=0",
    "callbacks.checkpoint.every_minutes=null",
    "logger.tensorboard=false",
    "trainer.log_every_steps=1000",
)


def last_loss(*overrides: str, trainer: str = "cpu") -> Callable[[Inputs], float]:
    """Trains, and gives the validation loss after the last step."""
    return lambda inputs: _train(inputs, (*overrides, f"trainer={trainer}", "trainer.val_every_steps=5000"))[0]


def best_loss(*overrides: str) -> Callable[[Inputs], float]:
    """Trains on a GPU, and gives the lowest of the validation losses on the way."""
    return lambda inputs: _train(inputs, (*overrides, "trainer=gpu"))[1]


def _train(inputs: Inputs, overrides: tuple[str, ...]) -> tuple[float, float]:
    """Compose and train as `python -m gptexp.train` does: the last and the best loss over the whole validation part."""
    from rich.console import Console

    from gptexp.build import build
    from gptexp.compose import compose
    from gptexp.training import fit

    assert inputs.shakespeare is not None
    config = compose([*data_overrides(inputs.shakespeare, inputs.scratch), *overrides, *QUIET])
    with TemporaryDirectory(dir=inputs.scratch) as folder:
        experiment = build(config, Path(folder), console=Console(quiet=True))
        fit(experiment)
    assert experiment.lit.score is not None
    assert experiment.record.best is not None
    return experiment.lit.score.loss, experiment.record.best["val/loss"]


def _step(
    name: str, published: float, tolerance: float, source: str, overrides: tuple[str, ...], needs: frozenset[Need]
) -> Check:
    trainer = "gpu" if Need.gpu in needs else "cpu"
    return Check(
        name=name,
        published=published,
        tolerance=tolerance,
        source=source,
        compute=last_loss(*overrides, trainer=trainer),
        needs=needs,
    )


VIDEO = "Let's build GPT"

AREA = Area(
    title="Trained models",
    note="Validation loss in nats a character after the last step, ours over the whole validation part in windows "
    "that don't overlap; most published ones are means over random batches.",
    checks=(
        _step(
            "bigram against the counted one",
            2.4819,
            0.005,
            "counted, as above",
            ("experiment=shakespeare_bigram",),
            NEEDS,
        ),
        _step("lecture: bigram", 2.49, 0.05, VIDEO, BIGRAM, NEEDS),
        _step("lecture: one head of attention", 2.40, 0.05, VIDEO, HEAD, NEEDS),
        _step("lecture: four heads", 2.28, 0.05, VIDEO, HEADS, NEEDS),
        _step("lecture: feed-forward", 2.27, 0.05, VIDEO, FEED_FORWARD, NEEDS),
        _step("lecture: three blocks, residual", 2.09, 0.05, VIDEO, RESIDUAL, NEEDS),
        _step("lecture: LayerNorm", 2.08, 0.05, VIDEO, NORM, NEEDS),
        _step("lecture: scaled up", 1.48, 0.05, VIDEO, SCALED_UP, NEEDS_GPU),
        _step(
            "nanoGPT: shakespeare_char on a CPU",
            1.898,
            0.02,
            "nanoGPT, README; its checkpoint over the whole part",
            ("experiment=shakespeare_char_cpu",),
            NEEDS,
        ),
        Check(
            name="nanoGPT: shakespeare_char on a GPU, best",
            published=1.4697,
            tolerance=0.03,
            source="nanoGPT, README",
            compute=best_loss("experiment=shakespeare_char_gpu"),
            needs=NEEDS_GPU,
        ),
    ),
)
