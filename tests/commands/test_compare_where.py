"""`gptexp compare --where` on real runs: sums, errors and what is left out."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")


from gptexp.compare import main
from gptexp.compose.composition import compose
from gptexp.training.experiment import run_experiment
from support.run_folders import make_run
from support.runs import TINY, TINY_GPT, story

SWEEP = [*TINY, *TINY_GPT, "data.path=story.txt", "trainer.max_steps=20", "trainer.val_every_steps=20"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, a sweep over block_size with two seeds, and one run with another tokenizer."""
    place = tmp_path_factory.mktemp("where")
    (place / "story.txt").write_text(story(120), encoding="utf-8")
    with pytest.MonkeyPatch.context() as here:
        here.chdir(place)
        for size in (4, 16):
            for seed in (1, 2):
                config = compose([*SWEEP, f"model.block_size={size}", f"seed={seed}"])
                run_experiment(config, Path(f"sweep/{size}-{seed}"))
        run_experiment(compose([*SWEEP, "tokenizer=byte"]), Path("byte/1"))
    return place


@pytest.fixture
def here(swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Path:
    """A copy, which a test may change, as the current directory; compare draws nothing in it."""
    place = tmp_path / "here"
    shutil.copytree(swept, place)
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "80")
    return place


def rows(folder: str = "sweep/report") -> list[dict[str, str]]:
    return list(csv.DictReader((Path(folder) / "where.csv").read_text(encoding="utf-8").splitlines()))


def loss(run: str) -> float:
    found: dict[str, Any] = json.loads((Path(run) / "result.json").read_text(encoding="utf-8"))
    return float(found["metrics"]["val/loss"])


def test_contributions_add_up_to_the_difference_of_the_losses(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["sweep", "--where"])
    expected = sum(loss(f"sweep/16-{seed}") - loss(f"sweep/4-{seed}") for seed in (1, 2)) / 2
    found: dict[str, float] = {}
    for row in rows():
        found[row["split"]] = found.get(row["split"], 0.0) + float(row["contribution"])
    assert found == pytest.approx(dict.fromkeys(["place in 16", "frequency", "repetition in 16"], expected), abs=1e-6)
    text = " ".join(capsys.readouterr().out.split())
    assert "so the token at place 5 in 16 has place 1 in windows of 4" in text
    assert "result.json by up to" not in text  # CPU: trained and scored in float32
    assert "where.csv · curves.png · ablation.png · pareto.png · where.png · report.html" in text


def test_equal_runs_give_equal_bytes(here: Path) -> None:
    main(["sweep", "--where", "--out", "one"])
    main(["sweep", "--where", "--out", "two"])
    for name in ("where.csv", "report.html"):  # of where.png, tests/report/test_where.py shows it
        assert (here / "one" / name).read_bytes() == (here / "two" / name).read_bytes()


def test_a_run_without_a_checkpoint_is_named_and_the_others_remain(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("sweep/16-2/checkpoints")
    main(["sweep", "--where"])
    text = " ".join(capsys.readouterr().out.split())
    assert "not by place, frequency and repetition: sweep/16-2: no checkpoint in it" in text
    assert {row["seeds"] for row in rows()} == {"1"}


def test_another_tokenizer_is_not_paired(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["sweep", "byte", "--where", "--baseline", "tokenizer=char,block_size=4"])
    text = " ".join(capsys.readouterr().out.split())
    assert "byte/1: another tokenizer than the baseline: losses of different tokens cannot be paired" in text
    assert len({row["configuration"] for row in rows()}) == 1


def _drop_checkpoints(place: Path) -> None:
    for folder in place.glob("sweep/4-*/checkpoints"):
        shutil.rmtree(folder)


def _change_text(place: Path) -> None:
    (place / "story.txt").write_text(story(120).replace("cat", "owl"), encoding="utf-8")


def _change_step(place: Path) -> None:
    for file in place.glob("sweep/4-*/result.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "steps": 30, "tokens": 480}))


def _damage_checkpoints(place: Path) -> None:
    for file in place.glob("sweep/4-*/checkpoints/*.ckpt"):
        file.write_bytes(file.read_bytes()[:1000])


def _change_block_size(place: Path) -> None:
    for file in place.glob("sweep/4-*/config.yaml"):
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("block_size: 4\n", "block_size: four\n"), encoding="utf-8")


def _other_objective(place: Path) -> None:
    metrics = {"metrics": {"val/mlm_loss": 2.0}, "best": {"val/mlm_loss": 2.0}}
    for layers in (1, 2):
        make_run(place / f"mlm/{layers}", objective__kind="mlm", model__n_layer=layers, result=metrics)


def _from_elsewhere(place: Path) -> None:
    place.rename(place.with_name("other"))
    place.mkdir()


WRONG = {
    "no checkpoint": (_drop_checkpoints, ["sweep"], "--where: sweep/4-1: no checkpoint in it"),
    "changed text": (
        _change_text,
        ["sweep"],
        "--where: sweep/4-1: its validation text has changed since it was trained",
    ),
    "other step": (_change_step, ["sweep"], "--where: sweep/4-1: its checkpoint is of step 20, its result of step 30"),
    "damaged": (_damage_checkpoints, ["sweep"], "--where: sweep/4-1/checkpoints/last.ckpt: not a complete"),
    "block_size": (_change_block_size, ["sweep"], "--where: model.block_size=four: not a number of tokens"),
    "one configuration": (None, ["sweep/4-1", "sweep/4-2"], "--where: only one configuration"),
    "only other tokens": (None, ["sweep/16-1", "byte"], "--where: byte/1: another tokenizer than the baseline"),
    "mlm": (
        _other_objective,
        ["mlm", "--metric", "val/mlm_loss"],
        "--where: objective=mlm does not score the next token",
    ),
    "--at": (None, ["sweep", "--at", "tokens"], "--at=tokens: not supported with --where"),
    "--scaling": (None, ["sweep", "--scaling"], "--where: not supported with --scaling"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_located_is_one_line(here: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    change, arguments, message = WRONG[case]
    if change:
        change(here)
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--where"])
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert last.startswith(f"error: {message}"), err
    assert out == ""
    assert not list(here.rglob("report"))


def test_a_corpus_of_runs_from_elsewhere_needs_trust(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "elsewhere").mkdir()
    with pytest.MonkeyPatch.context() as there:
        there.chdir("elsewhere")
        for size in (4, 16):
            config = compose([*SWEEP, f"model.block_size={size}", "data.path=../story.txt"])
            run_experiment(config, Path(f"sweep/{size}"))
        with pytest.raises(SystemExit):
            main(["sweep", "--where"])
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith(
            "error: --where: sweep/4: its settings name the corpus to read (data.kind=text data.path=../"
        )
        assert error.endswith("; add --trust-data to allow that")
        main(["sweep", "--where", "--trust-data", "--cache", "tokens"])
        assert list(Path("tokens").glob("text-char-*/manifest.json"))


@pytest.mark.parametrize("arguments", [["--cache", "x"], ["--trust-data"]])
def test_options_of_where_need_it(here: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sweep", *arguments])
    assert capsys.readouterr().err == f"error: {arguments[0]}: only with --where\n"


def test_output_is_readable_at_80_columns(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["sweep", "--where"])
    printed = capsys.readouterr()
    table = printed.out.split("\nsweep/report:")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "\x1b" not in printed.out
    assert printed.err == ""
