"""Fixtures that all tests share: a folder with a small text, and training in it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest

from support.pictures import PNG
from support.runs import TINY, story

# Before the first import of models/: all tests check its shapes.
jaxtyping.install_import_hook("gptexp.models", "beartype.beartype")

# Several test processes share the cores. Without this line, each would start one thread per core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Packages that extend gptexp may be installed beside it; tests about them set this variable to 1.
os.environ.setdefault("GPTEXP_PACKAGES", "0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that have the longest time limits, so that no worker waits long for another at the end."""
    limits = [(marker.args[0] if (marker := item.get_closest_marker("timeout")) else 0) for item in items]
    items[:] = [item for _, item in sorted(zip(limits, items, strict=True), key=lambda pair: -pair[0])]


@pytest.fixture(scope="session", autouse=True)
def shared_bases() -> Iterator[None]:
    """Let Hydra compose each choice of groups once per process: it takes 0.2 s. Tests of compose/ compose anew."""
    from gptexp.compose.composition import Bases, compose

    assert compose.__kwdefaults__ is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(compose.__kwdefaults__, "bases", bases := Bases())
        patch.setattr("gptexp.sweep.plan.Bases", lambda: bases)
        yield


@pytest.fixture(scope="session", autouse=True)
def undrawn_runs() -> Iterator[None]:
    """Write no picture to curves.png at the end of a run: drawing takes 0.3 s. Tests of the picture draw it."""
    from gptexp.report import run_curves

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_curves, "_picture", lambda series: PNG)
        yield


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let matplotlib draw nothing, for tests of commands whose pictures other tests look at."""
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **options: file.write(PNG))


@pytest.fixture
def unchecked_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch the shape checks of models/ off, for tests of torch.compile: it can't trace the checks."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def quick_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks, and other commands of gptexp that this test starts with subprocess, start without the time for imports."""
    from support import child_processes

    child_processes.replace_popen(monkeypatch)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory that contains only story.txt."""
    (tmp_path / "story.txt").write_text(story(120), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts and runs: gpt (block_size 16, characters), words (bpe), bigram."""
    from support.trained_runs import train_runs

    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as here:
        here.chdir(place)
        train_runs(place)
    return place


@pytest.fixture
def train_here(workplace: Path) -> Callable[..., dict[str, Any]]:
    """Train in this process: overrides in, result.json out; the run's folder is ./<folder>."""

    def run(*overrides: str, folder: str = "run") -> dict[str, Any]:
        from gptexp.compose.composition import compose
        from gptexp.training.experiment import run_experiment as run_job

        config = compose([*TINY, "data.path=story.txt", *overrides])
        run_job(config, Path(folder))
        result: dict[str, Any] = json.loads((workplace / folder / "result.json").read_text(encoding="utf-8"))
        return result

    return run
