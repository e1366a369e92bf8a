"""benchmarks/gpu.py: a failed part gives a row, and a part without enough time is left out."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the program as a module."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("gpu")
    for name in ("gpu", "against_nanogpt", "record"):
        sys.modules.pop(name, None)


def raising(error: BaseException) -> Callable[[Any], str]:
    def run(bench: Any) -> str:
        raise error

    return run


def bench(gpu: Any, tmp_path: Path, seconds: float) -> Any:
    return gpu.Bench("cpu", True, tmp_path / "text.txt", None, tmp_path, seconds)


@pytest.mark.parametrize(
    "error", [ValueError("odd\nno memory"), SystemExit("a command\nno memory"), subprocess.TimeoutExpired("x", 1)]
)
def test_a_failed_part_gives_a_row_and_the_next_part_runs(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    saved: list[int] = []
    monkeypatch.setattr(gpu.record, "save", lambda path, figures, *_, **__: saved.append(len(figures["rows"])))
    parts = {"bad": gpu.Part(raising(error), 1, "bad"), "good": gpu.Part(lambda b: "12 ms", 1, "good")}
    monkeypatch.setattr(gpu, "PARTS", parts)
    options = argparse.Namespace(only="bad,good", json=tmp_path / "gpu.json")
    bad, good = gpu._rows(options, bench(gpu, tmp_path, 60))
    assert (bad["status"], good["status"], good["found"]) == ("failed", "done", "12 ms")
    assert bad["found"] in ("no memory", "did not finish in the remaining time")
    assert saved == [1, 2]


def test_a_part_without_enough_time_is_left_out(gpu: Any, tmp_path: Path) -> None:
    part = gpu.Part(raising(AssertionError("started")), 40, "slow")
    assert gpu.guarded(part, bench(gpu, tmp_path, 5)) == ("left out", "only 5 s left")


def test_nanogpt_is_skipped_without_a_clone(gpu: Any, tmp_path: Path) -> None:
    status, why = gpu.guarded(gpu.PARTS["nanogpt"], bench(gpu, tmp_path, 60))
    assert (status, why) == ("skipped", "give --nanogpt PATH, a clone of nanoGPT")


def test_a_program_over_its_time_limit_is_killed_with_its_children(gpu: Any, tmp_path: Path) -> None:
    against = importlib.import_module("against_nanogpt")
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    with pytest.raises(subprocess.TimeoutExpired):  # the child process would keep the terminal open
        against.terminal_lines([sys.executable, "-c", code], tmp_path, 0.3)
