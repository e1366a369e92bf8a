"""The exercises of the notebooks: right answers, typical mistakes, answers of a wrong form, and the solutions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from gptexp import notebook
from gptexp.exercises.answers import EXERCISES
from gptexp.exercises.grading import grade, read_texts, true_answer

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
TEXTS = read_texts()
ATTENTION = "03.2"  # asks for a function


def code(path: Path, prefix: str = "") -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code" and cell["id"].startswith(prefix)]


def names(file: str) -> list[str]:
    return [name for name in EXERCISES if name[:2] == file[:2]]


def test_every_notebook_has_three_exercises() -> None:
    assert list(TEXTS) == list(EXERCISES)
    assert {file: len(names(file)) for file in NOTEBOOKS} == dict.fromkeys(NOTEBOOKS, 3)
    assert len(EXERCISES) == 3 * len(NOTEBOOKS)


@pytest.mark.parametrize("name", EXERCISES)
def test_true_answer_is_right(name: str) -> None:
    found = grade(name, true_answer(name))
    assert (found.right, found.text) == (True, TEXTS[name].right)
    assert "A number to beat: " in found.text


@pytest.mark.parametrize("name", EXERCISES)
def test_each_typical_mistake_gets_its_own_hint(name: str) -> None:
    exercise, wrong = EXERCISES[name], TEXTS[name].wrong
    assert len(wrong) >= 3
    for mistake, hint in wrong:
        found = grade(name, exercise.mistakes[str(mistake)] if exercise.inputs else mistake)
        assert (found.right, found.text) == (False, hint)
    assert not exercise.inputs or set(exercise.mistakes) == {mistake for mistake, _ in wrong}


@pytest.mark.parametrize("answer", [None, ..., lambda q, k, v: None, lambda q, k, v: ...])
def test_a_missing_answer_is_no_mistake(answer: object) -> None:
    found = grade(ATTENTION, answer)
    assert (found.right, found.text) == (None, "No answer yet: give a function of q, k (T, D) and v (T, C).")


@pytest.mark.parametrize(
    ("name", "answer", "text"),
    [
        ("01.1", "0.25", "Expected a number; the answer has another type"),
        ("01.1", {}, "Expected a number; the answer has another type"),
        ("01.1", [0.25, 0.25], r"the shape is \(2,\), but must be \(\)"),
        ("01.1", float("nan"), "The answer contains NaN"),
        ("01.1", 7, "Write one step as"),
        ("03.3", [[1], [1, 2]], "The answer raises ValueError"),
        ("05.3", ["it's"], r"the shape is \(1,\), but must be \(4,\)"),
        ("05.3", 4, "Expected a list of texts"),
        (ATTENTION, 3, "The answer raises TypeError: int is not a function"),
        (ATTENTION, lambda q: q, "The answer raises TypeError: .* takes 1 positional argument"),
        (ATTENTION, lambda q, k, v: 1 / 0, "The answer raises ZeroDivisionError"),
        (ATTENTION, lambda q, k, v: q @ k.T, r"the shape is \(3, 3\), but must be \(3, 1\)"),
        (ATTENTION, lambda q, k, v: v * torch.nan, "The answer contains NaN"),
        (ATTENTION, lambda q, k, v: v, "Compute the scores"),
    ],
)
def test_an_answer_of_a_wrong_form_gets_one_line(name: str, answer: object, text: str) -> None:
    found = grade(name, answer)
    assert found.right is False
    assert "\n" not in found.text
    assert re.search(text, found.text)


@pytest.mark.parametrize("answer", [0.6667, np.float32(2 / 3), torch.tensor(2 / 3, requires_grad=True)])
def test_numbers_may_be_rounded_and_of_any_type(answer: object) -> None:
    assert grade("03.1", answer).right


def test_counts_are_exact() -> None:
    assert grade("01.2", 46720.0).right
    assert grade("01.2", 46721).right is False


def test_an_unknown_exercise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"9.9: no such exercise; there are 01.1, 01.2"):
        notebook.check("9.9")


@pytest.mark.parametrize("file", NOTEBOOKS)
def test_solutions_are_right(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec("\n\n".join(code(FOLDER / "solutions" / file)), {})
    right = [line[:4] for line in capsys.readouterr().out.splitlines() if line[4:].startswith(": right. ")]
    assert right == names(file)


@pytest.mark.parametrize("file", NOTEBOOKS)
def test_exercises_are_stored_without_answers(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    cells = code(FOLDER / file, "answer-")
    exec("\n\n".join(cells), {"notebook": notebook})
    printed = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in printed if "No answer yet: give" in line] == names(file)
    for name, cell in zip(names(file), cells, strict=True):
        assert f'notebook.check("{name}", ' in cell
