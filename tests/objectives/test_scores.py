"""Losses and scores of the objectives are correct, and scores add up."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from gptexp.compose.composition import compose
from gptexp.config.objective import ClassificationConfig, ClassWeights
from gptexp.config.tokenizer import ByteConfig
from gptexp.data.examples import pad
from gptexp.data.prepared import LabelFacts
from gptexp.objectives.classification import Classification, Score, text_nats
from gptexp.tokenizers import train_tokenizer
from support.labelled_texts import (
    CLASSIFY,
    Train,
    write_csv,
)


@pytest.mark.parametrize("batches", [1, 3])
def test_scores_add_up_and_are_restored_from_their_sums(batches: int) -> None:
    objective, model = _untrained()
    model = model.double().eval().requires_grad_(False)
    texts = [np.array([5, 6, 7]), np.array([8, 9]), np.array([10])]
    parts = [(*pad(texts[i::batches]), torch.tensor([0, 1, 1][i::batches])) for i in range(batches)]
    first, *others = (objective.measure(model, part) for part in parts)
    score = sum(others, first)
    assert score.confusion.sum(axis=1).tolist() == [1, 2]
    assert score.sums() == [score.nats, *score.confusion.flatten().tolist()]
    assert len(score.sums()) == 1 + 4
    assert objective.score(score.sums()).record() == score.record()
    whole = objective.measure(model, (*pad(texts), torch.tensor([0, 1, 1])))
    assert score.nats == pytest.approx(whole.nats, rel=1e-12)


def test_balanced_weights_make_labels_equal_and_average_to_one() -> None:
    config = ClassificationConfig(class_weights=ClassWeights.balanced)
    objective = Classification(
        config, train_tokenizer(ByteConfig()), LabelFacts(labels=["rare", "usual"], counts=[10, 90])
    )
    assert objective._weights.tolist() == pytest.approx([5.0, 100 / 180])
    assert float((objective._weights * torch.tensor([10, 90])).sum()) == pytest.approx(100)


def test_class_weights_improve_rare_labels(train: Train) -> None:
    """If words carry little information, a classifier predicts frequent labels unless rare labels have more weight."""
    draw = random.Random(1)
    write_csv(
        "texts.csv", [(f"{i} {draw.choice('xy' if i % 8 else 'xz')}", "no" if i % 8 else "yes") for i in range(320)]
    )
    settings = [*CLASSIFY, "optimizer=adamw", "trainer.max_steps=60", "trainer.val_every_steps=60", "model.n_embd=16"]
    plain = train(*settings, folder="plain")["val"]["confusion"]
    weighted = train(*settings, "objective.class_weights=balanced", folder="weighted")["val"]["confusion"]
    assert weighted[1][1] > plain[1][1]


def test_macro_f1_equals_that_of_torchmetrics() -> None:
    from torchmetrics.functional.classification import multiclass_f1_score

    draw = np.random.default_rng(0)
    truth, found = draw.integers(0, 3, 200), draw.integers(0, 3, 200)
    confusion = np.zeros((4, 4))  # the fourth label occurs nowhere
    np.add.at(confusion, (truth, found), 1)
    expected = multiclass_f1_score(torch.tensor(found), torch.tensor(truth), num_classes=4, average="macro")
    score = Score(1.0, confusion, ["a", "b", "c", "d"])
    assert score.macro_f1 == pytest.approx(float(expected), abs=1e-6)
    assert score.accuracy == pytest.approx((truth == found).mean())


def test_the_language_model_loss_is_a_mean_over_real_tokens() -> None:
    tokens, lengths = pad([np.array([1, 2, 3, 0]), np.array([2, 1]), np.array([3])])
    logits = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    logs = logits.log_softmax(-1)
    first = -(logs[0, 0, 2] + logs[0, 1, 3]) / 2  # the last token, 0, is <|endoftext|> here and no target
    expected = torch.stack([first, -logs[1, 0, 1], torch.tensor(0.0)])
    torch.testing.assert_close(text_nats(logits, tokens, lengths, eot=0), expected)


def test_the_auxiliary_loss_is_scaled_by_its_weight(train: Train) -> None:
    objective, model = _untrained("objective.lm_weight=0.5")
    alone, same = _untrained("objective.lm_weight=0")
    batch = (*pad([np.array([5, 6, 7]), np.array([8, 9])]), torch.tensor([0, 1]))
    logits, token_logits = model(*batch[:2])
    extra = text_nats(token_logits, *batch[:2], objective.tokenizer.eot).mean()
    torch.testing.assert_close(objective.loss(model, batch), alone.loss(same, batch) + 0.5 * extra)
    assert same(*batch[:2])[1] is None
    assert len(logits) == 2


def _untrained(*overrides: str) -> tuple[Classification, Any]:
    from gptexp.models.build import seeded

    config = compose([*CLASSIFY, "tokenizer=byte", *overrides])
    objective = Classification(
        config.objective, train_tokenizer(config.tokenizer), LabelFacts(labels=["a", "b"], counts=[1, 1])
    )
    return objective, seeded(lambda: objective.make_model(config.model), seed=1)
