"""Texts and runs that the tests of evaluation share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from gptexp.objectives.loading import load_model
from gptexp.runs.opening import load
from support.runs import TINY, TINY_GPT, story

TEXT = "“Who took the seventh loaf?” she asks.\nA grey cat sleeps — the baker counts\tnine crows.  "
PLAIN = "A grey cat counts her loaves.\nThe baker sleeps on the warm oven,  as cats do!"
# Its characters are in both Big5 and GB18030.
CHINESE = "我不知道明天的天氣，不過今天早上是好的。他和我在山下走了很久，看到一大片花，也有人在那裡唱歌。\n" * 3
Evaluate = Callable[..., dict[str, Any]]


def train_runs(place: Path) -> None:
    """Write texts and runs into the current directory, place: gpt (block_size 16, characters), words (bpe), bigram."""
    from gptexp.compose.composition import compose
    from gptexp.training.experiment import run_experiment as run_job

    (place / "story.txt").write_text(story(120), encoding="utf-8")
    (place / "some.txt").write_text(story(31), encoding="utf-8")
    (place / "short.txt").write_text(TEXT, encoding="utf-8")
    (place / "plain.txt").write_text(PLAIN, encoding="utf-8")
    steps = ["trainer.max_steps=20", "trainer.val_every_steps=20", "data.path=story.txt"]
    run_job(compose([*TINY, *TINY_GPT, *steps, "model.position=learned"]), Path("gpt"))
    run_job(compose([*TINY, *TINY_GPT, *steps, "tokenizer=bpe", "tokenizer.vocab_size=300"]), Path("words"))
    run_job(compose([*TINY, *steps, "model=bigram"]), Path("bigram"))


def opened(run: str) -> tuple[nn.Module, Any]:
    return load_model(load(Path(run) / "checkpoints/last.ckpt"), run)
