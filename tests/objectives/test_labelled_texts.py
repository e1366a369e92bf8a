"""Labelled texts: reading, splitting, refused files, and the cache."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from gptexp.compose.composition import compose
from gptexp.data import labelled
from gptexp.data.labelled import prepare_labelled, split
from gptexp.tokenizers import train_tokenizer
from support.labelled_texts import (
    CLASSIFY,
    Train,
    labelled_settings,
    sentences,
    write_csv,
)


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
