"""Checks of published numbers: their types, how they are computed, and why they are skipped."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from gptexp.report import missing_packages
from gptexp.tokenizers import gpt2
from gptexp.util.signals import Interrupted
from gptexp.util.text import install_extra, printable

Value = int | float | str | tuple[int | float, ...]


class Need(Enum):
    """What a check needs besides the package; the value is the reason of a skip."""

    training = "trains a model"
    text = "reads Tiny Shakespeare: give --shakespeare PATH"
    weights = "reads GPT-2's weights: give --weights FOLDER"
    wikitext = "reads WikiText-2's test part: give --wikitext FILE (wiki.test.raw)"
    lambada = "reads LAMBADA's test part: give --lambada FILE (lambada_test.jsonl)"
    gpu = "hours on a CPU: needs a CUDA GPU"
    scipy = f"needs scipy: {install_extra('compare')}"
    vocabulary = f"needs GPT-2's vocabulary: {install_extra('gpt2')}"


SLOW = {Need.training, Need.text, Need.weights, Need.wikitext, Need.lambada, Need.gpu}  # skipped by --fast


class Status(Enum):
    passed = "pass"
    failed = "fail"
    skipped = "skipped"


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """The inputs on the command line. scratch: a folder for tokens and runs, removed at the end."""

    scratch: Path
    fast: bool = False
    shakespeare: Path | None = None
    weights: Path | None = None
    wikitext: Path | None = None
    lambada: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """A row of the table. tolerance: the largest allowed difference to the published value; 0 means equal.

    Every member of a tuple is compared. source: paper and section, or repository and file.
    """

    name: str
    published: Value
    source: str
    compute: Callable[[Inputs], Value]
    tolerance: float = 0.0
    needs: frozenset[Need] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Area:
    """The checks of one file. note: what a reader must know to judge them."""

    title: str
    note: str = ""
    checks: tuple[Check, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The outcome of a check. reason: of a skip, or of a failure without a value."""

    check: Check
    status: Status
    ours: Value | None = None
    reason: str = ""


def run_check(check: Check, inputs: Inputs) -> Outcome:
    """Compute a check and compare. An exception fails only this check; GPTEXP_TRACEBACK=1 prints its traceback.

    Raises:
        Interrupted: a signal arrived while the check trained.
    """
    if reason := why_skipped(check, inputs):
        return Outcome(check=check, status=Status.skipped, reason=reason)
    try:
        ours = check.compute(inputs)
    except Interrupted:
        raise
    except Exception as error:
        if os.environ.get("GPTEXP_TRACEBACK"):
            traceback.print_exc()
        return Outcome(check=check, status=Status.failed, reason=_one_line(error))
    agreed = agree(ours, check.published, check.tolerance)
    return Outcome(check=check, status=Status.passed if agreed else Status.failed, ours=ours)


def why_skipped(check: Check, inputs: Inputs) -> str:
    """Return the first unmet need of a check, or "" if it can be computed."""
    for need in Need:
        if need in check.needs and inputs.fast and need in SLOW:
            return "skipped by --fast: " + need.value.partition(":")[0]
        if need in check.needs and not _is_met(need, inputs):
            return need.value
    return ""


def agree(ours: Value, published: Value, tolerance: float) -> bool:
    """Return whether every number is within the tolerance, or texts are equal. A NaN never agrees."""
    if isinstance(ours, str) or isinstance(published, str):
        return ours == published
    a, b = (value if isinstance(value, tuple) else (value,) for value in (ours, published))
    return len(a) == len(b) and all(abs(x - y) <= tolerance for x, y in zip(a, b, strict=True))


def _is_met(need: Need, inputs: Inputs) -> bool:
    match need:
        case Need.training:  # needs only time
            return True
        case Need.text:
            return inputs.shakespeare is not None
        case Need.weights | Need.wikitext | Need.lambada:
            return getattr(inputs, need.name) is not None
        case Need.gpu:
            import torch

            return torch.cuda.is_available()
        case Need.scipy:
            return "scipy" not in missing_packages()
        case Need.vocabulary:
            return gpt2.is_there()


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return printable(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)
