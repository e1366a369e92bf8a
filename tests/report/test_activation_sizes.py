"""`gptexp compare --activations`: powers of the width, files, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")


from gptexp.compare import main
from gptexp.config.training import ACTIVATIONS
from gptexp.report.activations import sizes_csv, sizes_of, sizes_plots
from gptexp.report.comparable import NotComparable
from support.run_folders import make_run

POWERS = {"standard": 0.5, "mup": 0.0}


def runs(folder: Path) -> Path:
    """Six runs whose sizes are step * seed * n_embd^power, times the number of the name in ACTIVATIONS."""
    for parametrization, power in POWERS.items():
        for width, seed in ((32, 1), (64, 1), (64, 4)):
            changes: dict[str, Any] = {
                "model__parametrization": parametrization,
                "model__n_embd": width,
                "model__n_head": width // 8,
            }
            run = make_run(folder / f"{parametrization}{width}{seed}", seed=seed, **changes)
            with (run / "metrics.csv").open("w", encoding="utf-8", newline="") as file:
                rows = csv.writer(file)
                rows.writerow(["step", "val/loss", *ACTIVATIONS])
                for step in (1, 2):
                    rows.writerow([step, 1, *(i * step * seed * width**power for i in range(1, 6))])
                rows.writerow([3, 1, *[""] * 5])
    return folder


def test_sizes_are_geometric_means_and_their_growth_is_the_power_of_the_width(tmp_path: Path) -> None:
    make_run(tmp_path / "without")
    found, left_out = sizes_of([runs(tmp_path)])
    assert [sizes.label for sizes in found] == ["parametrization mup", "parametrization standard"]
    for sizes, power in zip(found, (0.0, 0.5), strict=True):
        assert (sizes.widths, sizes.steps) == ([32, 64], [1, 2])
        mlp = sizes.values["activation/mlp"]
        assert mlp[0] == pytest.approx([3 * 32**power, 6 * 32**power])
        assert mlp[1] == pytest.approx([6 * 64**power, 12 * 64**power])  # the seeds 1 and 4 have the mean 2
        assert sizes.growth("activation/mlp") == pytest.approx(power + 1)
    assert [(run.folder.name, run.reason) for run in left_out] == [("without", "it logged no activations")]
    assert len(sizes_csv(found).splitlines()) == 1 + 2 * 2 * 2
    assert sizes_plots(found)["activations.png"].startswith(b"\x89PNG")


@pytest.mark.usefixtures("undrawn")
def test_compare_prints_the_powers_and_writes_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(runs(tmp_path)), "--activations"])
    printed = capsys.readouterr().out
    assert "parametrization standard, 2" in printed
    assert printed.count("+1.50") == 5
    names = {f"activations.{form}" for form in ("csv", "png", "pdf", "svg")}
    assert {path.name for path in (tmp_path / "report").iterdir()} == names


def test_runs_without_activations_or_of_one_width_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "one")
    with pytest.raises(NotComparable, match=r"differ in model\.n_embd; train with callbacks\.activations=true"):
        sizes_of([tmp_path])
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--activations", "--scaling"])
    assert "--activations: not supported with --scaling" in capsys.readouterr().err
