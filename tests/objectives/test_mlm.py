"""Masked language modelling: masks, attention, metrics, and fine-tuning from it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptexp import predict
from gptexp.compose.composition import compose
from gptexp.config.conversion import to_plain
from gptexp.data.batches import BatchPlan
from gptexp.data.examples import pad
from gptexp.data.masking import MaskedTrain, Masking
from gptexp.models.losses import IGNORED
from gptexp.objectives.loading import load_model, load_trained
from gptexp.runs import checkpoint as ckpt
from gptexp.runs.opening import load
from gptexp.util.errors import ConfigError
from support.labelled_texts import (
    CLASSIFY,
    TINY,
    Train,
    gpt_settings,
)


def test_mlm_masks_15_percent_of_tokens_as_80_10_10() -> None:
    """Within five standard deviations of the binomial distribution; the seed is fixed, so the test is deterministic."""
    masking, tokens = Masking(0.15, vocab_size=50, eot=3), np.random.default_rng(5).integers(4, 50, (400, 64))
    hidden, swapped, kept = 0, 0, 0
    for number, window in enumerate(tokens):
        window[7] = 3  # <|endoftext|>
        shown, targets = masking.mask(window, (1, number))
        chosen = targets != IGNORED
        assert chosen.sum() == round(0.15 * 64)
        assert targets[7] == IGNORED
        assert (targets[chosen] == window[chosen]).all()
        assert (shown[~chosen] == window[~chosen]).all()
        hidden += int((shown[chosen] == 50).sum())
        kept += int((shown[chosen] == window[chosen]).sum())
        swapped += int(((shown[chosen] != 50) & (shown[chosen] != window[chosen])).sum())
    n = hidden + swapped + kept
    for count, share in [(hidden, 0.8), (swapped, 0.1 * 49 / 50), (kept, 0.1 + 0.1 / 50)]:
        assert abs(count - share * n) < 5 * math.sqrt(n * share * (1 - share))


def test_mlm_masks_depend_only_on_seed_and_step(train: Train, tmp_path: Path) -> None:
    from gptexp.data.order import WindowOrder
    from gptexp.data.prepare import prepare

    Path("story.txt").write_text("a story of some length, told again. " * 60, encoding="utf-8")
    config = compose([*TINY, "data=text", "data.path=story.txt", "tokenizer=byte"])
    store = prepare(config.data, config.tokenizer, tmp_path / "cache").train
    masking = Masking(0.15, 257, 256)

    def step(seed: int, number: int, plan: BatchPlan) -> list[bytes]:
        found = []
        for rank in range(plan.world_size):
            batches = MaskedTrain(
                store,
                WindowOrder(len(store), 32, seed),
                plan,
                masking,
                rank=rank,
                first_step=number,
                last_step=number + 1,
            )
            found += [row.numpy().tobytes() for j in range(len(batches)) for row in torch.cat(batches[j][:2], 1)]
        return sorted(found)

    whole = step(1, 4, BatchPlan(8, 8, 1, 1))
    assert whole == step(1, 4, BatchPlan(8, 2, 2, 2))
    assert whole != step(2, 4, BatchPlan(8, 8, 1, 1))
    assert whole != step(1, 5, BatchPlan(8, 8, 1, 1))


@pytest.mark.parametrize("position", ["learned", "rope", "alibi", "sinusoidal", "none"])
def test_mlm_attends_to_both_sides_and_lm_does_not(position: str) -> None:
    from gptexp.models.gpt import GPT

    config = gpt_settings(f"model.position={position}")
    torch.manual_seed(0)
    tokens = torch.randint(0, 20, (2, 10))
    changed = tokens.clone()
    changed[:, 6] = (changed[:, 6] + 1) % 20
    for causal in (True, False):
        model = GPT(config, 20, causal=causal).double().eval()
        difference = (model(tokens) - model(changed)).abs().amax(dim=(0, 2))
        assert (difference[6:] > 1e-9).all()
        assert bool((difference[:6] > 1e-9).all()) is not causal
        assert bool((difference[:6] == 0).all()) is causal


@pytest.mark.parametrize("position", ["learned", "rope", "alibi"])
def test_bidirectional_attention_does_not_see_padding(position: str) -> None:
    from gptexp.models.gpt import GPT

    config = gpt_settings(f"model.position={position}")
    torch.manual_seed(0)
    model = GPT(config, 20, causal=False).double().eval()
    tokens, lengths = pad([np.arange(9), np.arange(4)])
    together = model(tokens, lengths=lengths)
    torch.testing.assert_close(together[1, :4], model(tokens[1:, :4])[0])
    torch.testing.assert_close(together[0], model(tokens[:1])[0])


def test_an_mlm_run_has_mlm_metrics_and_one_additional_row(masked: dict[str, Any]) -> None:
    assert list(masked["metrics"]) == ["val/mlm_loss", "val/mlm_accuracy"]
    text = Path("masked/metrics.csv").read_text(encoding="utf-8") + json.dumps(masked)
    assert "bpb" not in text
    assert "val/loss" not in text
    saved = load(Path("masked/checkpoints/last.ckpt"))
    objective, model = load_trained(saved, "masked")
    assert len(saved.model["transformer.wte.weight"]) == objective.tokenizer.vocab_size + 1
    assert sum(p.numel() for p in model.parameters()) == masked["parameters"]
    assert masked["val"]["tokens"] == sum(round(0.15 * n) for n in [32] * 8 + [270 - 32 * 8])


def test_an_mlm_run_generates_no_text_and_has_no_bits_per_byte(masked: dict[str, Any], capsys: Any) -> None:
    from gptexp import evaluate, generate

    for program, arguments in [(generate, ["masked", "--prompt", "The"]), (evaluate, ["masked"])]:
        with pytest.raises(SystemExit):
            program.main(arguments)
        error = capsys.readouterr().err.splitlines()[-1]
        assert "was trained with objective=mlm: it predicts masked tokens from both sides" in error
    with pytest.raises(SystemExit):
        predict.main(["masked", "--text", "The"])
    assert "was trained with objective=mlm, which has no labels" in capsys.readouterr().err
    with pytest.raises(ValueError, match="predicts a label"):
        load_model(_as_classifier(load(Path("masked/checkpoints/last.ckpt"))), "run")


def _as_classifier(saved: ckpt.Checkpoint) -> ckpt.Checkpoint:
    saved.config["objective"] = to_plain(compose(CLASSIFY))["objective"]
    return saved


def test_a_classifier_uses_weights_and_attention_of_an_mlm_run(masked: dict[str, Any], train: Train) -> None:
    settings = [
        "objective=classification",
        "data=labelled",
        "data.path=texts.csv",
        "trainer.max_steps=2",
        "trainer=cpu",
    ]
    result = train("init_from=masked", *settings, folder="fine")
    assert 0 <= result["metrics"]["val/accuracy"] <= 1
    saved = load(Path("fine/checkpoints/last.ckpt"))
    assert saved.config["objective"]["bidirectional"] is True
    wte = saved.model["transformer.wte.weight"]
    before = load(Path("masked/checkpoints/last.ckpt")).model["transformer.wte.weight"]
    assert len(wte) == len(before) - 1
    torch.testing.assert_close(wte, before[:-1], atol=0.05, rtol=0)
    again = train("init_from=masked", *settings[:-2], "resume=fine", "trainer.max_steps=3", folder="longer")
    assert (again["resumed_from"], again["steps"]) == (2, 3)  # the original command can be run again
    with pytest.raises(ConfigError, match=r"with bidirectional attention; use objective.bidirectional=true"):
        train("init_from=masked", *settings, "objective.bidirectional=false", folder="other")
    with pytest.raises(ConfigError, match=r"with bidirectional attention; choose objective=mlm or classification"):
        train("init_from=masked", "data=pydocs", folder="other")
    with pytest.raises(
        ConfigError, match=r"init_from=fine was trained with objective=classification and has no mask token"
    ):
        train("init_from=fine", "objective=mlm", "data=text", "data.path=story.txt", folder="other")
