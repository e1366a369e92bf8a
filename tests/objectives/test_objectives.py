"""Classification and masked language modelling: learning, refused input, and determinism."""

from __future__ import annotations

import csv
import json
import math
import random
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gptexp import predict
from gptexp.commands.predict import _show_table
from gptexp.compose.composition import compose, config_from_plain
from gptexp.compose.inheritance import check_against_source
from gptexp.config.conversion import to_plain
from gptexp.config.data import LabelledConfig
from gptexp.config.model import GPTConfig
from gptexp.config.objective import ClassificationConfig, ClassWeights, LMConfig
from gptexp.config.tokenizer import ByteConfig, CharConfig
from gptexp.data import labelled
from gptexp.data.batches import BatchPlan
from gptexp.data.examples import TrainTexts, pad
from gptexp.data.labelled import prepare_labelled, split
from gptexp.data.masking import MaskedTrain, Masking
from gptexp.data.order import ExampleOrder
from gptexp.data.prepared import DataFacts, LabelFacts
from gptexp.models.losses import IGNORED
from gptexp.objectives import implementation
from gptexp.objectives.classification import Classification, Score, text_nats
from gptexp.objectives.loading import load_model, load_trained
from gptexp.report.comparison import Question, compare_folders
from gptexp.runs import checkpoint as ckpt
from gptexp.runs.finding import stored_settings
from gptexp.runs.opening import load
from gptexp.tokenizers import Tokenizer, train_tokenizer
from gptexp.training.experiment import run_experiment as run_job
from gptexp.util.errors import ConfigError, RunError
from gptexp.util.signals import Interrupted

GLAD, SAD = ("good", "lovely", "warm", "bright"), ("bad", "awful", "cold", "dull")
THINGS = ("bread", "soup", "room", "song", "walk")
TINY = [
    "trainer=cpu",
    "trainer.log_every_steps=5",
    "callbacks.samples.tokens=0",
    "model.n_layer=1",
    "model.n_head=2",
    "model.n_embd=32",
    "model.block_size=32",
]
CLASSIFY = [*TINY, "objective=classification", "data=labelled", "data.path=texts.csv", "data.global_batch_size=16"]
Train = Callable[..., dict[str, Any]]


def sentences(n: int, seed: int = 0, share: float = 0.5) -> list[tuple[str, str]]:
    """Sentences whose label is determined by one of their words."""
    draw = random.Random(seed)
    labels = ["glad" if draw.random() < share else "sad" for _ in range(n)]
    return [(_sentence(draw, GLAD if label == "glad" else SAD), label) for label in labels]


def _sentence(draw: random.Random, words: tuple[str, ...]) -> str:
    return f"The {draw.choice(THINGS)} {draw.randrange(100)} was {draw.choice(words)}."


def write_csv(path: str, rows: list[tuple[Any, Any]], columns: tuple[str, str] = ("text", "label")) -> None:
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def labelled_settings(*overrides: str) -> LabelledConfig:
    """The settings `data` of CLASSIFY with these overrides."""
    data = compose([*CLASSIFY, *overrides]).data
    assert isinstance(data, LabelledConfig)
    return data


def gpt_settings(*overrides: str) -> GPTConfig:
    """The settings `model` of TINY with these overrides."""
    model = compose([*TINY, *overrides]).model
    assert isinstance(model, GPTConfig)
    return model


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Train in this process in a folder that contains only texts.csv; the run folder is ./<folder>."""
    monkeypatch.chdir(tmp_path)
    write_csv("texts.csv", sentences(200))

    def run(*overrides: str, folder: str = "run") -> dict[str, Any]:
        config = compose(list(overrides))
        check_against_source(config)
        return run_job(config, Path(folder)).as_plain()

    return run


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts.csv and a classifier trained on it, in ./run."""
    place = tmp_path_factory.mktemp("learned")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        write_csv("texts.csv", sentences(400))
        config = compose([*CLASSIFY, "trainer.max_steps=200", "trainer.val_every_steps=100"])
        run_job(config, Path("run"))
    return place


# ------------------------------------------------------------------------------ learning labels


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


# --------------------------------------------------------------------------------- data


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_file_gives_the_same_rows(suffix: str, train: Train, tmp_path: Path) -> None:
    rows = [("It's “fine”, really", "NA"), ("two\nlines", "yes"), ("007", "NA"), ("tab\there", "yes"), ("", "yes")]
    _write_as(suffix, rows * 3)
    data = labelled_settings(f"data.path=rows.{suffix}")
    found = prepare_labelled(data, train_tokenizer(compose(["tokenizer=byte"]).tokenizer), tmp_path / "cache")
    assert found.labels == ["NA", "yes"]
    decoded = {
        (found.tokenizer.decode(part.text(i, 100)), found.labels[part.labels[i]])
        for part in (found.train, found.val)
        for i in range(len(part))
    }
    assert decoded == {row for row in rows if row[0]}  # rows without a text are skipped


def _write_as(suffix: str, rows: list[tuple[str, str]]) -> None:
    path = Path(f"rows.{suffix}")
    if suffix == "jsonl":
        path.write_text("".join(json.dumps({"text": t, "label": n}) + "\n" for t, n in rows), encoding="utf-8")
    elif suffix == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        texts, labels = zip(*rows, strict=True)
        pq.write_table(pa.table({"text": list(texts), "label": list(labels)}), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter="\t" if suffix == "tsv" else ",").writerows([("text", "label"), *rows])


def test_labels_can_be_numbers_and_are_sorted_numerically(train: Train, tmp_path: Path) -> None:
    write_csv("stars.csv", [(f"text {i}", (1, 2, 10)[i % 3]) for i in range(30)])
    data = labelled_settings("data.path=stars.csv")
    found = prepare_labelled(data, compose().tokenizer, tmp_path / "cache")
    assert found.labels == [1, 2, 10]
    assert found.facts.counts == [9, 9, 9]


def test_the_split_is_stratified_and_keeps_copies_together() -> None:
    rows = [(hash(i // 2), (f"text {i // 2}", "often" if i < 180 else "seldom")) for i in range(200)]
    rows.append((10**9, ("alone", "once")))
    train, val = split(sorted(rows), 0.1)
    labels = [row[1] for _, row in val]
    assert (labels.count("often"), labels.count("seldom"), labels.count("once")) == (18, 2, 0)
    assert not {row[0] for _, row in train} & {row[0] for _, row in val}


def test_the_split_does_not_depend_on_the_seed_or_the_order_of_rows(train: Train, tmp_path: Path) -> None:
    rows = sentences(80)
    hashes = set()
    for name, order, more in [("a", rows, []), ("b", rows[::-1], []), ("c", rows, ["seed=7"])]:
        write_csv(f"{name}.csv", order)
        data = labelled_settings(f"data.path={name}.csv", *more)
        hashes.add(prepare_labelled(data, compose().tokenizer, tmp_path / "cache").text_sha256)
    assert len(hashes) == 1
    other = labelled_settings("data.path=a.csv", "data.split_seed=1")
    assert prepare_labelled(other, compose().tokenizer, tmp_path / "cache").text_sha256 not in hashes


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.path=none.csv"], r"data.path=none.csv: no such file \(looked in .*\)"),
        (["data.path=."], r"data.path=.: is a folder; name a file or a glob in it \(.csv, "),
        (["data.path=notes.txt"], r"data.path=notes.txt: notes.txt: unknown kind of file; give one of"),
        (
            ["data.text_column=review"],
            r"data.text_column=review: no such column in data.path=texts.csv; there are text",
        ),
        (["data.label_column=stars"], r"data.label_column=stars: no such column in data.path=texts.csv; there are"),
        (["data.path=one.csv"], r"data.label_column=label: the training texts all have the label 'glad'; at least 2"),
        (["data.path=floats.jsonl"], r"data.path=floats.jsonl: row 1: data.label_column=label is 0.5, a float"),
        (["data.path=empty.csv"], r"data.path=empty.csv: has no row with a text in text and a label in label"),
        (["data.path=broken.parquet"], r"data.path=broken.parquet: can't be read \("),
        (["data.val_path=val.csv"], r"data.label_column=label: validation has 1 text of 'angry', training none; give"),
        (["data.dataset=csv", "data.path=null"], r"data.dataset=csv: use data.path for local files"),
    ],
)
def test_wrong_files_are_refused_in_one_line(overrides: list[str], message: str, train: Train) -> None:
    Path("notes.txt").write_text("no table", encoding="utf-8")
    write_csv("one.csv", [("a", "glad"), ("b", "glad")])
    write_csv("val.csv", [("a", "glad"), ("b", "angry")])
    write_csv("empty.csv", [("", "glad"), ("", "sad")])
    Path("floats.jsonl").write_text('{"text": "x", "label": 0.5}\n' * 4, encoding="utf-8")
    Path("broken.parquet").write_bytes(b"not a table")
    with pytest.raises(ValueError, match=message) as raised:
        train(*CLASSIFY, *overrides)
    assert "\n" not in str(raised.value)


def test_all_labels_have_the_same_type() -> None:
    with pytest.raises(
        ValueError, match=r"data.label_column: holds words \('a'\) and numbers \(1\); use only one of them"
    ):
        labelled._whole_numbers([("x", "a"), ("y", 1)])


def test_a_separate_validation_file_is_scored_completely(train: Train, tmp_path: Path) -> None:
    write_csv("val.csv", sentences(33, seed=9))
    found = prepare_labelled(labelled_settings("data.val_path=val.csv"), compose().tokenizer, tmp_path / "cache")
    assert (len(found.train), len(found.val)) == (200, 33)


def test_an_earlier_manifest_of_labelled_texts_is_opened(train: Train, tmp_path: Path) -> None:
    settings, tokenizer = labelled_settings(), compose().tokenizer
    first = prepare_labelled(settings, tokenizer, tmp_path / "cache")
    path = first.folder / "manifest.json"
    plain = json.loads(path.read_bytes())
    plain = {"format": 1, **{name: value for name, value in plain.items() if name != "schema"}, "cuts_runs": True}
    for part in ("train", "val"):
        del plain[part]["documents"], plain[part]["cuts_runs"]
    path.write_text(json.dumps(plain), encoding="utf-8")
    again = prepare_labelled(settings, tokenizer, tmp_path / "cache")
    assert again.facts.counts == first.facts.counts
    assert again.fingerprint != first.fingerprint  # the rule for cutting long words counts now


# ---------------------------------------------------------------------------- loss and score


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
    settings = [*CLASSIFY, "trainer.max_steps=60", "trainer.val_every_steps=60", "model.n_embd=16"]
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


# --------------------------------------------------------------------------- hidden tokens


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


MLM = [*TINY, "objective=mlm", "data=text", "data.path=story.txt", "data.val_bytes=500", "trainer.max_steps=4"]


@pytest.fixture
def masked(train: Train) -> dict[str, Any]:
    """The result of a short run of objective=mlm in ./masked."""
    Path("story.txt").write_text("\n".join(text for text, _ in sentences(120)), encoding="utf-8")
    return train(*MLM, folder="masked")


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
            program.main(arguments)  # type: ignore[attr-defined]
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
        ConfigError, match=r"init_from=fine was trained with objective=classification, and has no token"
    ):
        train("init_from=fine", "objective=mlm", "data=text", "data.path=story.txt", folder="other")


# ------------------------------------------------------------------- together with language models


def test_runs_of_different_objectives_are_not_compared(masked: dict[str, Any], learned: Path, train: Train) -> None:
    lm = [setting for setting in MLM if setting != "objective=mlm"]
    train(*lm, folder="all/lm")
    shutil.copytree("masked", "all/mlm")
    shutil.copytree(learned / "run", "all/labels")
    comparison = compare_folders([Path("all")], Question())
    reasons = {lost.folder.name: lost.reason for lost in comparison.left_out}
    assert reasons == {
        "mlm": "objective=mlm has no val/bpb; it has val/mlm_accuracy, val/mlm_loss",
        "labels": "objective=classification has no val/bpb; it has val/accuracy, val/loss, val/macro_f1",
    }
    with pytest.raises(RunError, match=r"another objective, where val/loss measures something else"):
        compare_folders([Path("all")], Question(metric="val/loss"))
    accuracy = compare_folders([Path("all/labels")], Question(metric="val/accuracy"))
    assert len(accuracy.rows) == 1


def test_a_run_without_an_objective_is_a_language_model(train: Train) -> None:
    from gptexp.config.fingerprint import identity

    Path("story.txt").write_text("\n".join(text for text, _ in sentences(120)), encoding="utf-8")
    train(*[setting for setting in MLM if setting != "objective=mlm"], folder="old")
    path = Path("old/checkpoints/last.ckpt")
    saved = load(path)
    settings = saved.config.copy()
    reported = identity(settings)
    del settings["objective"]
    assert identity(settings) == reported
    saved.model = {name: tensor.clone() for name, tensor in saved.model.items()}
    saved.optimizer = {n: {k: v.clone() for k, v in state.items()} for n, state in saved.optimizer.items()}
    saved.config = settings
    ckpt.save(saved, path)
    config = Path("old/config.yaml")
    lines = config.read_text(encoding="utf-8").splitlines(keepends=True)
    start = lines.index("objective:\n")
    config.write_text("".join(lines[:start] + lines[start + 2 :]), encoding="utf-8")
    assert "objective" not in config.read_text(encoding="utf-8")
    assert stored_settings("old")["objective"] == {"kind": "lm"}
    assert config_from_plain(settings).objective.kind == "lm"
    model, _ = load_model(load(path), path)
    assert model(torch.zeros(1, 2, dtype=torch.int64)).shape[:2] == (1, 2)
    assert train("resume=old", "trainer.max_steps=6", folder="longer")["steps"] == 6


def test_untrusted_labels_are_treated_as_data(learned: Path) -> None:
    saved = load(learned / "run/checkpoints/last.ckpt")
    for wrong in (
        {"labels": ["a"]},
        {"labels": ["a", "a"]},
        {"labels": "ab"},
        {"counts": [1, -1]},
        {"labels": [["a"], 1]},
    ):
        changed = ckpt.Checkpoint(**{n: getattr(saved, n) for n in saved.__slots__} | {"data": {**saved.data, **wrong}})
        with pytest.raises(ValueError, match=r"^run: .*classifier"):
            load_trained(changed, "run")


# -------------------------------------------------------------------------- slow tests


def topics(n: int, length: int, seed: int) -> list[tuple[str, int]]:
    """Texts on one of two topics. Each character is a word of its topic, and a text contains few of the forty words."""
    draw = random.Random(seed)
    words = ["".join(chr(0x4E00 + 64 * topic + i) for i in range(40)) for topic in (0, 1)]
    return [("".join(draw.choices(words[i % 2], k=length)), i % 2) for i in range(n)]


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "steps", "windows"), [("lm", 150, 12), ("mlm", 300, 24)])
def test_pretraining_is_better_than_scratch_with_few_labels(
    objective: str, steps: int, windows: int, train: Train
) -> None:
    """Text without labels tells which words belong together; twelve labelled texts don't show them all.

    mlm is given more, because a step teaches it two tokens of each window and lm all sixteen: with lm's 150
    steps it has found no topics yet, and its start is worse than none (0.62 against 0.75).
    """
    Path("story.txt").write_text("\n".join(text for text, _ in topics(1500, 15, seed=1)), encoding="utf-8")
    write_csv("few.csv", topics(12, 3, seed=2))
    write_csv("val.csv", topics(200, 3, seed=3))
    size = ["trainer=cpu", "callbacks.samples.tokens=0", "logger.tensorboard=false", "model.block_size=16"]
    size += ["model.n_layer=2", "model.n_head=2", "model.n_embd=32"]
    train(
        *size,
        f"objective={objective}",
        "data=text",
        "data.path=story.txt",
        f"trainer.max_steps={steps}",
        f"data.global_batch_size={windows}",
        folder="pre",
    )
    fine = ["objective=classification", "data=labelled", "data.path=few.csv", "data.val_path=val.csv", "trainer=cpu"]
    fine += ["trainer.max_steps=25", "trainer.val_every_steps=25", "optimizer.lr=1e-3", "data.global_batch_size=12"]
    fine += ["logger.tensorboard=false"]
    scratch = [*size, "init_from=null", f"objective.bidirectional={str(objective == 'mlm').lower()}"]
    accuracy: dict[str, list[float]] = {"pre": [], "scratch": []}
    for seed in (1, 2, 3):
        for start, settings in {"pre": ["init_from=pre"], "scratch": scratch}.items():
            result = train(*settings, *fine, f"seed={seed}", folder=f"{start}{seed}")
            accuracy[start].append(result["metrics"]["val/accuracy"])
    assert np.mean(accuracy["pre"]) > np.mean(accuracy["scratch"]) + 0.1


class Beginning:
    """A validation store of which only the first tokens are read."""

    def __init__(self, tokenizer: Tokenizer, text: str) -> None:
        self.tokens = tokenizer.encode(text)

    def __len__(self) -> int:
        return len(self.tokens)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.tokens[start:stop]


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("　　却说曹操引兵追袭袁绍，\n忽闻", ' --prompt "却说曹操引兵追袭袁绍"'),
        ("滚滚长江东逝水浪花淘尽英雄是非成败", ' --prompt "滚滚长江东逝水浪花淘尽英"'),
        ('$(rm -rf /) `ls` "x"', ' --prompt "rm"'),
        ("*** --- !\n", ""),
    ],
)
def test_the_suggested_command_has_a_prompt_from_the_text(text: str, option: str) -> None:
    tokenizer = train_tokenizer(CharConfig(), [text], [text])
    objective = implementation("lm")(LMConfig(), tokenizer, DataFacts())
    command = objective.next_command("latest", SimpleNamespace(val=Beginning(tokenizer, text)))
    assert command == "python -m gptexp.generate latest" + option
    for prompt in shlex.split(option)[1:]:
        assert tokenizer.decode(tokenizer.encode(prompt)) == prompt


def test_a_suggested_prompt_has_no_partial_character() -> None:
    tokenizer = train_tokenizer(ByteConfig(), [""], [""])
    half = SimpleNamespace(val=Beginning(tokenizer, "水")).val
    half.tokens = half.tokens[1:]
    command = implementation("lm")(LMConfig(), tokenizer, DataFacts()).next_command("latest", SimpleNamespace(val=half))
    assert command == "python -m gptexp.generate latest"
