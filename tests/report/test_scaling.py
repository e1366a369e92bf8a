"""Scaling laws: known constants are recovered, and unsuitable data are refused."""

from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy")

from rich.console import Console

from gptexp.report import scaling
from gptexp.report.scaling import Constants, fit, fit_folders
from gptexp.report.scaling_report import print_law, to_json
from gptexp.util.errors import RunError
from support.run_folders import make_run
from support.runs import command

TRUE = Constants(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)  # Chinchilla (arXiv 2203.15556, equation 10)
N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e5, 1e7, 5), np.geomspace(1e6, 1e9, 5)))


def simulated(seed: int, noise: float = 0.005) -> np.ndarray:
    return TRUE.loss(N, D) * np.exp(noise * np.random.default_rng(seed).standard_normal(N.size))


@pytest.fixture
def rough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit from few starting points and with few resamples, for tests of which runs are fitted."""
    monkeypatch.setattr(scaling, "STARTS", scaling.STARTS[::8])
    monkeypatch.setattr(scaling, "fit", partial(fit, resamples=4))


def test_known_constants_are_inside_the_intervals_of_the_fit() -> None:
    """Four simulated ladders with five constants each: at 95%, one of twenty intervals may miss."""
    held = 0
    for seed in range(4):
        law = fit(N, D, simulated(seed), resamples=60)
        held += sum(low <= getattr(TRUE, name) <= high for name, (low, high) in law.intervals.items())
        assert law.constants.alpha == pytest.approx(TRUE.alpha, abs=0.03)
        assert law.constants.beta == pytest.approx(TRUE.beta, abs=0.03)
        assert pytest.approx(TRUE.E, rel=0.15) == law.constants.E
    assert held >= 18


def test_without_noise_the_fit_recovers_the_constants_exactly() -> None:
    found = fit(N, D, simulated(0, noise=0.0), resamples=2).constants
    for name in ("E", "A", "B", "alpha", "beta"):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=0.01)


def test_no_other_size_is_better_than_the_optimum() -> None:
    """The closed form against a search over N at C = 6 N D."""
    flops = 1e20
    n, d = TRUE.optimum(flops)
    assert 6 * n * d == pytest.approx(flops)
    sizes = np.geomspace(n / 100, n * 100, 100_001)
    searched = sizes[np.argmin(TRUE.loss(sizes, flops / 6 / sizes))]
    assert searched == pytest.approx(n, rel=1e-3)


def test_a_ladder_that_is_too_small_is_reported() -> None:
    def reported(n: np.ndarray, d: np.ndarray, losses: np.ndarray) -> str:
        file = io.StringIO()
        print_law(Console(width=200, file=file), fit(n, d, losses, resamples=30), None)
        return file.getvalue()

    assert "not determined" not in reported(N, D, simulated(0, noise=0.0001))
    near = (N < 2e6) & (D < 4e7)  # sizes and lengths close together, and the noise of single runs
    assert "not determined by these runs: " in reported(N[near], D[near], simulated(1, noise=0.1)[near])


LADDERS = {
    "two sizes": (np.repeat([1e5, 1e6], 4), np.tile([1e6, 2e6, 4e6, 8e6], 2), "2 distinct sizes"),
    "one amount": (np.geomspace(1e5, 1e7, 8), np.full(8, 1e6), "1 distinct amounts of data"),
    "few pairs": (np.array([1e5, 1e6, 1e7, 1e5]), np.array([1e6, 2e6, 4e6, 2e6]), "4 distinct pairs"),
    "together": (np.geomspace(1e5, 1e7, 8), 20 * np.geomspace(1e5, 1e7, 8), "N and D grow together"),
}


@pytest.mark.parametrize("ladder", LADDERS)
def test_a_ladder_that_cannot_determine_the_constants_is_refused(ladder: str) -> None:
    n, d, message = LADDERS[ladder]
    with pytest.raises(RunError, match=f"--scaling: {message}"):
        fit(n, d, np.asarray(TRUE.loss(n, d)))


def test_a_loss_that_does_not_decrease_is_refused() -> None:
    with pytest.raises(RunError, match="does not decrease with the number of"):
        fit(N, D, np.full(N.size, 2.0) + 1e-3 * np.log(N))


def ladder(place: Path, bf16_from: int = 10_000) -> Path:
    """bf16_from: the smallest width for which `trainer.precision: auto` selects bf16."""
    for i, n in enumerate((1e5, 1e6, 1e7)):
        for j, steps in enumerate((100, 1000, 10_000)):
            loss = 1.2 + 60 / n**0.35 + 30 / (steps * 512) ** 0.3
            settings = {"model__n_embd": 2 ** (5 + i), "trainer__max_steps": steps, "trainer__val_every_steps": steps}
            chosen = {"precision": "bf16-mixed" if 2 ** (5 + i) >= bf16_from else "32-true"}
            noisy = loss * (1 + 1e-3 * (-1) ** (i + j))
            make_run(place / f"{i}{j}", noisy, parameters=int(n), result=chosen, **settings)
    return place


def test_scaling_prints_constants_and_the_best_size_and_draws_the_fit(tmp_path: Path) -> None:
    ladder(tmp_path / "ladder")
    done = command("compare", "--scaling", "ladder", "--budget", "1e16", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "val/bpb = E + A / N^alpha + B / D^beta · 9 runs" in done.stdout
    assert "best for 1e+16 FLOPs: " in done.stdout
    assert "times the compute of the largest run: an extrapolation" in done.stdout
    law = json.loads((tmp_path / "ladder/report/scaling.json").read_text())
    assert law["constants"]["alpha"] == pytest.approx(0.35, abs=0.03)
    assert 6 * law["optimum"]["parameters"] * law["optimum"]["tokens"] == pytest.approx(1e16)
    assert (tmp_path / "ladder/report/scaling.png").read_bytes()[:4] == b"\x89PNG"


def test_runs_stopped_before_the_end_of_their_schedule_are_excluded(tmp_path: Path, rough: None) -> None:
    ladder(tmp_path)
    make_run(tmp_path / "early", 9.0, model__n_embd=7, trainer__max_steps=1000, result={"steps": 400, "tokens": 4})
    law = fit_folders([tmp_path], "val/bpb")
    assert [(excluded.folder.name, excluded.reason) for excluded in law.left_out] == [
        ("early", "stopped at step 400 of 1,000: its schedule had not ended")
    ]
    assert law.n.size == 9


def mixed_ladder(place: Path) -> Path:
    """Nine consistent runs, and nine with another tokenizer and optimizer and much higher losses."""
    ladder(place / "consistent")
    for i, n in enumerate((1e5, 1e6)):
        for steps in (100, 1000, 10_000):
            settings = {"model__n_embd": 2 ** (5 + i), "trainer__max_steps": steps, "trainer__val_every_steps": steps}
            others: dict[str, Any] = {"tokenizer__kind": "byte", "optimizer__kind": "muon", "optimizer__lr": 0.02}
            make_run(place / f"other{i}-{steps}", 3 + 90 / n**0.35, parameters=int(n), **settings, **others)
    return place


def test_one_law_is_fitted_to_runs_that_agree_in_all_but_size(tmp_path: Path, rough: None) -> None:
    law = fit_folders([mixed_ladder(tmp_path)], "val/bpb")
    assert law.n.size == 9
    assert pytest.approx(1.2, abs=0.3) == law.constants.E
    assert {excluded.reason for excluded in law.left_out} == {
        "not of the fitted group: tokenizer.kind is byte, not char; optimizer.kind is muon, not adamw"
    }
    assert law.group.startswith("fitted: 9 of 15 runs, the largest group that agrees in all but size and length (char")


def test_rates_that_follow_the_size_belong_to_one_law(tmp_path: Path, rough: None) -> None:
    for i, n in enumerate((1e5, 1e6, 1e7)):
        for steps in (100, 1000, 10_000):
            size = {"model__n_embd": 2 ** (5 + i), "trainer__max_steps": steps, "trainer__val_every_steps": steps}
            make_run(tmp_path / f"{i}-{steps}", 1.2 + 60 / n**0.35 + 30 / (steps * 512) ** 0.3, parameters=int(n),
                     optimizer__lr=0.01 / (i + 1), **size)  # fmt: skip
    assert fit_folders([tmp_path], "val/bpb").n.size == 9
    make_run(tmp_path / "swept", 5.0, parameters=int(1e5), optimizer__lr=0.5, model__n_embd=32, trainer__max_steps=100)
    law = fit_folders([tmp_path], "val/bpb")
    assert law.n.size == 9
    assert [excluded.reason for excluded in law.left_out] == ["not of the fitted group: optimizer.lr is 0.5, not 0.01"]


def test_a_precision_that_follows_the_width_belongs_to_one_law(tmp_path: Path, rough: None) -> None:
    """On a CPU, `trainer.precision: auto` selects float32 for narrow layers and bf16 for wide ones."""
    ladder(tmp_path, bf16_from=64)
    assert fit_folders([tmp_path], "val/bpb").n.size == 9
    make_run(tmp_path / "other-machine", 5.0, parameters=int(1e5), model__n_embd=32, trainer__max_steps=100,
             trainer__val_every_steps=100, result={"precision": "bf16-mixed"})  # fmt: skip
    law = fit_folders([tmp_path], "val/bpb")
    assert law.n.size == 9
    assert [excluded.folder.name for excluded in law.left_out] == ["other-machine"]
    assert "trainer.precision is bf16-mixed, not 32-true" in law.left_out[0].reason


def wide_ladder() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """64 sizes and lengths with noise, which is largest for large models."""
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e5, 1e8, 8), np.geomspace(1e6, 1e9, 8)))
    return n, d, 0.02 * (n / n.max()) ** 0.35


def test_the_note_states_that_pairs_are_resampled_from_50_points() -> None:
    n, d, spread = wide_ladder()
    losses = TRUE.loss(n, d) * np.exp(spread * np.random.default_rng(0).standard_normal(n.size))
    large, small = fit(n, d, losses, resamples=2), fit(N, D, simulated(0), resamples=2)
    assert [large.resampled, small.resampled] == ["pairs", "residuals"]
    for law, note in ((large, "whole runs resampled"), (small, "residuals resampled")):
        file = io.StringIO()
        print_law(Console(width=200, file=file), law, None)
        assert note in file.getvalue()
        assert json.loads(to_json(law, None))["resampled"] == law.resampled


@pytest.mark.slow
def test_intervals_keep_their_coverage_if_the_noise_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 simulated ladders, 100 resamples each, gave 97% by pairs and 88% by residuals of the stated 95%."""
    n, d, spread = wide_ladder()
    monkeypatch.setattr(scaling, "STARTS", scaling.STARTS[::8])

    def coverage(first_pair: int) -> float:
        monkeypatch.setattr(scaling, "PAIRS_FROM", first_pair)
        held: list[bool] = []
        for seed in range(12):
            noise = spread * np.random.default_rng(1000 + seed).standard_normal(n.size)
            law = fit(n, d, TRUE.loss(n, d) * np.exp(noise), resamples=80)
            held += [low <= getattr(TRUE, name) <= high for name, (low, high) in law.intervals.items()]
        return sum(held) / len(held)

    assert coverage(first_pair=50) >= 0.93
    assert coverage(first_pair=1000) <= 0.9
