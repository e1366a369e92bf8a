"""Names of configurations by presets and settings, progress of sweeps, and main effects."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("scipy")

from gptexp.report.effects import main_effects
from gptexp.util.errors import RunError
from support.comparisons import asked, text_of
from support.run_folders import make_run


def swept(place: Path, *jobs: str, values: dict[str, Any] | None = None) -> Path:
    """sweep.yaml of these jobs, named as a sweep names them: `model=bigram,seed=1`."""
    place.mkdir(parents=True, exist_ok=True)
    stored = [{"name": job, "overrides": job.split(","), "identity": "0", "config": {}} for job in jobs]
    (place / "sweep.yaml").write_text(yaml.safe_dump({"format": 1, "jobs": stored, **(values or {})}))
    return place


MODELS: dict[str, dict[str, Any]] = {
    "bigram": {"kind": "bigram"},
    "self_attention": {"kind": "gpt", "n_layer": 1},
    "mini_gpt": {"kind": "gpt"},
}


def models(place: Path) -> Path:
    """A sweep over three presets of models."""
    swept(place, *(f"model={name},seed={seed}" for name in MODELS for seed in (1, 2)))
    for name, settings in MODELS.items():
        for seed in (1, 2):
            changes = {f"model__{key}": value for key, value in settings.items()}
            make_run(place / f"model={name},seed={seed}", 2.0 + seed / 10, seed=seed, **changes)
    return place


def test_rows_are_named_by_the_typed_presets(tmp_path: Path) -> None:
    c = asked(models(tmp_path / "sweep"))
    assert [row.label for row in c.rows] == list(MODELS)  # in the order typed
    assert (c.keys, c.along) == (["model"], [])
    assert text_of(c).splitlines()[0].split()[:2] == ["model", "seeds"]
    for baseline in ("model=mini_gpt", "mini_gpt"):
        assert asked(tmp_path, baseline=baseline).baseline.label == "mini_gpt"
    assert asked(tmp_path, baseline="model.kind=bigram").baseline.label == "bigram"
    assert asked(tmp_path, baseline="model=bigram").baseline.label == "bigram"


def test_presets_of_single_runs_are_read_from_their_command_lines(tmp_path: Path) -> None:
    for name, settings in MODELS.items():
        run = make_run(tmp_path / name, 2.0, **{f"model__{key}": value for key, value in settings.items()})
        (run / "provenance.json").write_text(json.dumps({"command": f"python -m gptexp.train model={name} seed=1"}))
    assert sorted(row.label for row in asked(tmp_path).rows) == sorted(MODELS)
    (tmp_path / "bigram/provenance.json").write_text("[")  # unreadable, so the settings distinguish the rows
    assert "bigram, n_layer 2" in [row.label for row in asked(tmp_path).rows]


@pytest.mark.parametrize(
    "baseline",
    ["n_layer=4,position=rope", "n_layer=4 position=rope", "n_layer=4, position=rope", ["n_layer=4", "position=rope"],
     "n_layer 4, position rope"],
)  # fmt: skip
def test_a_baseline_of_several_settings_is_accepted_in_any_spelling(tmp_path: Path, baseline: str | list[str]) -> None:
    for n in (2, 4):
        for position in ("rope", "learned"):
            make_run(tmp_path / f"{n}{position}", 2.0, model__n_layer=n, model__position=position)
    assert asked(tmp_path, baseline=baseline).baseline.label == "n_layer 4, position rope"
    with pytest.raises(RunError, match=r"2 configurations have this; give one of: n_layer=4,position=learned; n_l"):
        asked(tmp_path, baseline="n_layer=4")


def test_several_texts_are_listed_with_their_folders(tmp_path: Path) -> None:
    for name, sha in (("novels", "a"), ("poems", "b"), ("laws", "c")):
        for seed in (1, 2) if name == "novels" else (1,):
            make_run(tmp_path / name / str(seed), 2.0, seed=seed, sha=sha * 64, data__path=f"{name}.txt")
    make_run(tmp_path / "novels/deep", 1.9, model__n_layer=8, sha="b" * 64, data__path="poems.txt")
    with pytest.raises(RunError) as error:
        asked(tmp_path)
    assert str(error.value) == (
        "nothing to compare: scored on 3 validation texts; give one of: "
        f"{tmp_path}/novels/1 {tmp_path}/novels/2 (2 runs on novels.txt); "
        f"{tmp_path}/novels/deep {tmp_path}/poems (2 runs on poems.txt); {tmp_path}/laws (1 run on laws.txt)"
    )
    make_run(tmp_path / "novels/other", 1.9, model__n_layer=4, data__path="novels.txt")
    assert "3 validation texts, of which a table compares one; their folders: " in " ".join(
        text_of(asked(tmp_path)).split()
    )


def test_a_sweep_in_progress_shows_the_number_of_complete_jobs(tmp_path: Path) -> None:
    place = swept(tmp_path / "sweep", "n_layer=2", "n_layer=4", "n_layer=8")
    stored = yaml.safe_load((place / "sweep.yaml").read_text())
    for job in stored["jobs"]:
        job["overrides"] = [f"model.{job['name']}"]
    (place / "sweep.yaml").write_text(yaml.safe_dump(stored))
    make_run(place / "n_layer=2", 2.0)
    (make_run(place / "n_layer=4", 2.0, model__n_layer=4) / "result.json").unlink()
    c = asked(place)
    assert [row.label for row in c.rows] == ["n_layer 2"]
    assert f"{place}: 1 of 3 jobs complete; the others are not in this table" in text_of(c, width=300)
    for n in (4, 8):
        make_run(place / f"n_layer={n}", 2.0, model__n_layer=n)
    assert "jobs complete" not in text_of(asked(place), width=300)


def grid(place: Path, seeds: tuple[int, ...] = (1, 2, 3)) -> Path:
    """Effects: n_layer 0.1, rope 0.03, dropout 0.2 with rope; standard deviation over seeds 0.01."""
    for n in (2, 4):
        for position in ("learned", "rope"):
            for dropout in (0.0, 0.1):
                for seed in seeds:
                    value = 2.0 - 0.1 * (n == 4) - 0.03 * (position == "rope") + 0.2 * dropout * (position == "rope")
                    which: dict[str, Any] = {
                        "model__n_layer": n,
                        "model__position": position,
                        "model__dropout": dropout,
                    }
                    make_run(place / f"{n}{position}{dropout}-{seed}", value + seed / 100, seed=seed, **which)
    return place


def test_main_effects_average_each_factor_over_the_others(tmp_path: Path) -> None:
    layers, position, dropout = main_effects(asked(grid(tmp_path)))
    assert [(effect.name, effect.cells, effect.over) for effect in (layers, position, dropout)] == [
        (name, 4, "seeds") for name in ("n_layer", "position", "dropout")
    ]
    assert layers.levels[0].interval.mean == pytest.approx(2.0 + 0.02 - 0.015 + 0.005)
    assert layers.levels[0].interval.half_width == pytest.approx(4.3026527 * 0.01 / math.sqrt(3))
    gaps = [effect.levels[1].difference for effect in (layers, position, dropout)]
    assert [gap.mean for gap in gaps if gap] == [pytest.approx(-0.1), pytest.approx(-0.02), pytest.approx(0.01)]
    assert "mean over the others" in text_of(asked(tmp_path))


def test_main_effects_of_one_seed_are_over_the_combinations(tmp_path: Path) -> None:
    effects = main_effects(asked(grid(tmp_path, seeds=(1,))))
    assert {(effect.over, effect.levels[1].interval.n) for effect in effects} == {("combinations", 4)}
    assert main_effects(asked(two_kinds(tmp_path / "other"))) == []


def two_kinds(place: Path) -> Path:
    """The settings of tokenizers share no value, so they form no grid."""
    make_run(place / "a", 2.0)
    for size in (512, 1024):
        make_run(place / f"{size}", 2.0, tokenizer={"kind": "bpe", "vocab_size": size})
    return place


def test_headings_and_words_of_a_grid_are_whole_at_80_columns(tmp_path: Path) -> None:
    lines = text_of(asked(grid(tmp_path))).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[:6] == ["n_layer", "position", "dropout", "seeds", "val/bpb", "difference"]
    assert lines[2].split()[:3] == ["2", "learned", "0.0"]
