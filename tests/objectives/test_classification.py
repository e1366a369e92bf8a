"""A classifier learns, predicts, resumes and is deterministic."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gptexp import predict
from gptexp.commands.predict import _show_table
from gptexp.data.batches import BatchPlan
from gptexp.data.examples import TrainTexts
from gptexp.data.order import ExampleOrder
from gptexp.objectives.classification import Classification, Score
from gptexp.objectives.loading import load_trained
from gptexp.runs.opening import load
from gptexp.util.signals import Interrupted
from support.emulated_device import emulated
from support.labelled_texts import (
    CLASSIFY,
    Train,
    sentences,
    write_csv,
)


def test_a_small_corpus_is_learned_and_everything_about_it_is_recorded(learned: Path) -> None:
    result = json.loads((learned / "run/result.json").read_text(encoding="utf-8"))
    assert result["metrics"]["val/accuracy"] >= 0.95
    assert list(result["metrics"]) == ["val/loss", "val/accuracy", "val/macro_f1"]
    assert result["best"]["val/loss"] <= result["metrics"]["val/loss"]
    val = result["val"]
    assert val["texts"] == sum(map(sum, val["confusion"])) == pytest.approx(40, abs=2)
    assert val["labels"] == ["glad", "sad"]
    assert sum(val["confusion"][i][i] for i in (0, 1)) / val["texts"] == result["metrics"]["val/accuracy"]
    with (learned / "run/metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {"val/loss", "val/accuracy", "val/macro_f1"} < set(rows[-1])
    assert float(rows[-1]["val/accuracy"]) == result["metrics"]["val/accuracy"]
    assert not (learned / "run/samples.md").exists()
    saved = load(learned / "run/checkpoints/last.ckpt")
    assert saved.data["labels"] == ["glad", "sad"]
    assert sum(saved.data["counts"]) + val["texts"] == 400


def test_tensorboard_has_the_curves_and_the_confusion_matrix(learned: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(learned / "run"))
    events.Reload()
    assert {"val/loss", "val/accuracy", "val/macro_f1"} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["confusion"]


def test_without_matplotlib_the_confusion_matrix_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from gptexp.training.callbacks import confusion

    written: list[str] = []
    writer = SimpleNamespace(add_figure=None, add_text=lambda tag, text, step: written.append(text))
    monkeypatch.setattr(confusion, "find_spec", lambda name: None)
    monkeypatch.setattr(confusion, "LitGPT", SimpleNamespace)
    lit = SimpleNamespace(score=Score(1.0, np.array([[3.0, 1.0], [0.0, 2.0]]), ["a|b", "c"]), step=7)
    trainer = SimpleNamespace(is_global_zero=True, loggers=[SimpleNamespace(experiment=writer)])
    confusion.ConfusionMatrix().on_validation_end(trainer, lit)  # type: ignore[arg-type]
    assert written[0].splitlines()[2:] == ["| a&#124;b | 3 | 1 |", "| c | 0 | 2 |"]


def test_predict_labels_texts_and_files(
    learned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(learned)
    texts = ["The soup 7 was lovely.", "The walk 12 was awful."]
    predict.main(["run", "--text", texts[0], "--text", texts[1], "--json"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["text"], row["label"]) for row in found] == [(texts[0], "glad"), (texts[1], "sad")]
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-5 for row in found)
    Path("more.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    predict.main(["run", "--file", "more.jsonl", "--json"])
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["label"] for row in again] == ["glad", "sad"]
    predict.main(["run", "--text", texts[0]])
    assert "lovely. │ glad " in capsys.readouterr().out


def test_the_table_shows_texts_and_labels_literally(capsys: pytest.CaptureFixture[str]) -> None:
    _show_table(iter([{"text": "[red]a\x1b[31m", "label": "[/b]", "probabilities": {"[/b]": 0.75, "c": 0.25}}]))
    shown = capsys.readouterr().out
    assert r"[red]a\x1b[31m" in shown
    assert "[/b] 75.0% · c 25.0%" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--text: give a text to label, or --file with many"),
        (["--text", " "], "--text: is empty, so no label can be predicted"),
        (["--text", "The söng"], "the text 'The söng': character 'ö'"),
        (["--file", "none.csv"], "--file=none.csv: no such file"),
        (["--file", "texts.csv", "--text-column", "txt"], "--file=texts.csv: no column txt; there are text, label"),
    ],
)
def test_predict_refuses_wrong_input_in_one_line(
    arguments: list[str],
    message: str,
    learned: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(learned)
    with pytest.raises(SystemExit):
        predict.main(["run", *arguments])
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith(f"error: {message}")


def test_padding_changes_no_logit(learned: Path) -> None:
    objective, model = load_trained(load(learned / "run/checkpoints/last.ckpt"), "run")
    assert isinstance(objective, Classification)
    texts = ["The soup 7 was lovely.", "cold.", "The walk 12 was bright.", "T"]
    together = objective.probabilities(model, texts)
    alone = torch.cat([objective.probabilities(model, [text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3  # the prediction depends on the text


def test_a_device_gives_the_probabilities_of_the_cpu(
    learned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(learned)
    line = ["run", "--text", "The soup 7 was lovely.", "--text", "cold.", "--json"]

    def rows() -> list[dict[str, Any]]:
        predict.main(line)
        return [json.loads(row) for row in capsys.readouterr().out.splitlines()]

    expected = rows()
    with emulated(monkeypatch) as operations:
        for found, row in zip(rows(), expected, strict=True):
            assert found["probabilities"] == pytest.approx(row["probabilities"], rel=1e-5)
        assert operations() > 20


def test_long_texts_keep_their_end(learned: Path) -> None:
    objective, model = load_trained(load(learned / "run/checkpoints/last.ckpt"), "run")
    assert isinstance(objective, Classification)
    end = "The soup 7 was really lovely now"
    assert len(end) == 32  # block_size
    both = objective.probabilities(model, ["The walk 3 was awful. " + end, end])
    torch.testing.assert_close(both[0], both[1])


def test_a_killed_classification_run_resumes_bitwise_identically(train: Train) -> None:
    """Bitwise identical, with dropout, over several epochs and with accumulation."""
    settings = [*CLASSIFY, "trainer.max_steps=30", "trainer.val_every_steps=10", "model.dropout=0.1"]
    settings += ["data.micro_batch_size=8", "data.path=few.csv"]
    write_csv("few.csv", sentences(50))
    whole = train(*settings, folder="whole")
    short = [*settings, "callbacks.checkpoint.every_steps=4"]
    with pytest.MonkeyPatch.context() as patch:
        _interrupt_after(patch, 13)
        with pytest.raises(Interrupted):
            train(*short, folder="parts")
    resumed = train("resume=parts", folder="parts")
    assert resumed["resumed_from"] == 13
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["val"] == whole["val"]
    a, b = (load(Path(folder) / "checkpoints/last.ckpt") for folder in ("whole", "parts"))
    assert a.model.keys() == b.model.keys()
    assert all(torch.equal(a.model[name], b.model[name]) for name in a.model)


def _interrupt_after(patch: pytest.MonkeyPatch, step: int) -> None:
    """Behave as if SIGTERM arrived during this step."""
    from gptexp.training.callbacks.checkpoints import Checkpoints

    original = Checkpoints.on_train_batch_end

    def on_train_batch_end(self: Checkpoints, trainer: Any, lit: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if lit.step == step:
            self.signals.received = 15
        original(self, trainer, lit, outputs, batch, batch_idx)

    patch.setattr(Checkpoints, "on_train_batch_end", on_train_batch_end)


def test_the_loss_does_not_depend_on_the_micro_batch_size(train: Train) -> None:
    """Texts of different lengths and balanced classes, for which a mean of means would be wrong."""
    write_csv(
        "texts.csv", [(text[: 5 + 7 * (i % 5)], label) for i, (text, label) in enumerate(sentences(60, share=0.8))]
    )
    settings = [*CLASSIFY, "trainer.max_steps=8", "trainer.precision=64-true", "objective.class_weights=balanced"]
    whole = train(*settings, "data.micro_batch_size=16", folder="whole")
    parts = train(*settings, "data.micro_batch_size=4", folder="parts")
    assert parts["metrics"]["val/loss"] == pytest.approx(whole["metrics"]["val/loss"], rel=1e-9)


def test_every_text_is_used_once_per_epoch_in_any_layout() -> None:
    order = ExampleOrder(37, seed=3)
    epochs = [order.indices(37 * epoch, 37).tolist() for epoch in range(3)]
    assert all(sorted(epoch) == list(range(37)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert ExampleOrder(37, seed=4).indices(0, 37).tolist() != epochs[0]
    crossing = order.indices(30, 20).tolist()
    assert crossing == [*epochs[0][30:], *epochs[1][:13]]
    seen = _texts_of_step(order, BatchPlan(12, 12, 1, 1), ranks=1)
    assert seen == _texts_of_step(order, BatchPlan(12, 2, 3, 2), ranks=2)


def _texts_of_step(order: ExampleOrder, plan: BatchPlan, ranks: int) -> list[int]:
    """Labels of the texts of step 5 on all ranks; each text has a different label."""
    examples: Any = SimpleNamespace(labels=np.arange(37), text=lambda index, size: np.array([index]))
    found = []
    for rank in range(ranks):
        texts = TrainTexts(examples, order, plan, block_size=8, rank=rank, first_step=5, last_step=6)
        found += [int(label) for j in range(len(texts)) for label in texts[j][2]]
    return sorted(found)
