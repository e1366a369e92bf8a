"""The grade of an answer by its value: numbers, lists and tensors, or the results of a function."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import torch

from gptexp.exercises.answers import EXERCISES, Exercise


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What a learner reads. asks: the form of an answer. hint: for other wrong answers than those of `wrong`.

    wrong: pairs of a typical wrong answer, or the name of a wrong function, and its hint.
    """

    asks: str
    right: str
    hint: str
    wrong: Sequence[tuple[object, str]]


@dataclass(frozen=True)
class Grade:
    """right: None for an exercise without an answer."""

    right: bool | None
    text: str


def read_texts() -> dict[str, Texts]:
    """Return the texts of all exercises, by name."""
    text = files("gptexp.exercises").joinpath("texts.toml").read_text(encoding="utf-8")
    return {name: Texts(**fields) for name, fields in tomllib.loads(text).items()}


def grade(name: str, answer: object) -> Grade:
    """Return the grade of an answer to the exercise of this name, such as "03.2".

    Raises:
        ValueError: no such exercise.
    """
    if name not in EXERCISES:
        raise ValueError(f"{name}: no such exercise; there are {', '.join(EXERCISES)}")
    texts = read_texts()[name]
    try:
        given = results(name, answer)
    except Exception as error:  # of the learner's code
        line = " ".join(str(error).split())[:200]
        return Grade(False, f"The answer raises {type(error).__name__}: {line}")
    if any(one.dtype == object and one.ndim == 0 and one.item() in (None, ...) for one in given):
        return Grade(None, f"No answer yet: give {texts.asks}.")
    return _judge(name, given, texts)


def results(name: str, answer: object) -> list[np.ndarray]:
    """Return the value of an answer; if the exercise asks for a function, its value for each input."""
    inputs = EXERCISES[name].inputs
    if not inputs or answer is None or answer is ...:
        return [_array(answer)]
    if not callable(answer):
        raise TypeError(f"{type(answer).__name__} is not a function")
    return [_array(answer(*map(_argument, values))) for values in inputs]


def true_answer(name: str) -> object:
    """Return the true answer: a value or a function."""
    exercise = EXERCISES[name]
    return exercise.truth if exercise.inputs else exercise.truth()


def _argument(value: object) -> object:
    """A list of numbers as a tensor, or a copy of a list of tokens: a function may change what it gets."""
    if not isinstance(value, list):
        return value
    return list(value) if isinstance(value[0], str) else torch.tensor(value)


def _array(value: object) -> np.ndarray:
    return value.detach().cpu().double().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _judge(name: str, given: list[np.ndarray], texts: Texts) -> Grade:
    exercise, truth = EXERCISES[name], results(name, true_answer(name))
    if _equal(given, truth, exercise):
        return Grade(True, texts.right)
    for wrong, hint in texts.wrong:
        mistake = exercise.mistakes[str(wrong)] if exercise.inputs else wrong
        if _equal(given, results(name, mistake), exercise):
            return Grade(False, hint)
    unlike = (_unlike(one, other, texts.asks) for one, other in zip(given, truth, strict=True))
    return Grade(False, next(filter(None, unlike), texts.hint))


def _equal(given: list[np.ndarray], others: list[np.ndarray], exercise: Exercise) -> bool:
    """Whole numbers are exact; values may be rounded to 1%, and results of a function as float32 rounds."""
    if any(one.shape != two.shape or _real(one) != _real(two) for one, two in zip(given, others, strict=True)):
        return False
    if not _real(others[0]) or others[0].dtype.kind in "biu":
        return all(bool(np.all(one == two)) for one, two in zip(given, others, strict=True))
    near = 1e-4 if exercise.inputs else 1e-2
    return all(np.allclose(*two, rtol=near, atol=near / 100, equal_nan=True) for two in zip(given, others, strict=True))


def _real(array: np.ndarray) -> bool:
    return array.dtype.kind in "biuf"


def _unlike(given: np.ndarray, truth: np.ndarray, asks: str) -> str:
    """What is wrong with the form of an answer, or an empty text."""
    if _real(given) != _real(truth):
        return f"Expected {asks}; the answer has another type."
    if given.shape != truth.shape:
        return f"Expected {asks}: the shape is {given.shape}, but must be {truth.shape}."
    nan = _real(given) and bool(np.isnan(given).any())
    return "The answer contains NaN: look for 0 / 0, inf - inf or inf / inf." if nan else ""
