"""result.json and provenance.json have one reader, one writer and a schema; file names are defined once."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from gptexp.runs import layout
from gptexp.runs.provenance import last_code, provenance_files, read_provenance, write_provenance
from gptexp.runs.result import Result, find_result, finite, is_finished, read_result, write_result
from gptexp.util.package import PACKAGE

COMPLETED = Result(
    status="completed",
    metrics=finite({"val/loss": 1.5, "val/perplexity": float("inf")}),
    best={"val/loss": 1.5, "step": 3},
    val={"tokens": 7, "nats": 10.5, "text_sha256": "a"},
    steps=3,
    tokens=12,
    seconds=0.5,
    training_seconds=0.25,
    tokens_per_second=48.0,
    parameters=10,
    trainable_parameters=10,
    precision="32-true",
    flops_per_token=0.0,
    bytes_per_token=1.0,
    peak_lr=1e-3,
    code_sha256="c",
    history=[],
    length={"asked": {"max_time": "5min"}, "max_steps": 6},
)


@pytest.mark.parametrize(
    ("result", "keys"),
    [
        (Result(status="interrupted", signal="SIGINT", steps=4), {"schema", "status", "signal", "steps"}),
        (Result(status="failed", error="nan", seconds=0.0), {"schema", "status", "error", "seconds"}),
        (COMPLETED, {"schema", *vars(COMPLETED)} - {"signal", "error", "mixture"}),
    ],
)
def test_a_result_is_read_as_it_was_written(tmp_path: Path, result: Result, keys: set[str]) -> None:
    write_result(tmp_path, result)
    assert set(json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))) == keys
    assert read_result(tmp_path) == find_result(tmp_path) == result
    assert is_finished(tmp_path) == (result.status == "completed")


def test_a_key_that_an_older_result_lacks_has_the_default(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"status": "completed", "steps": 2}')
    assert read_result(tmp_path) == Result(status="completed", steps=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"status": "completed", "schema": 2}', "schema=2: this version of gptexp reads schema 1"),
        ('{"status": "completed", "steps": 0}', "steps is 0"),
        ('{"status": "completed", "steps": true}', "steps is True"),
        ('{"status": "completed", "seconds": NaN}', "seconds is nan"),
        ('{"status": "completed", "tokens_per_second": 0}', "tokens_per_second is 0"),
        ('{"status": "completed", "best": {"val/loss": "x"}}', "val/loss is 'x'"),
        ('{"status": "completed", "val": [1]}', "val is not an object"),
        ('{"status": "completed", "history": [1]}', "its history is not a list of segments"),
        ('{"status": "completed", "length": {"asked": {}, "max_steps": 0}}', "length is {'asked': {}, 'max_steps': 0}"),
        ('{"status": "completed", "length": {"asked": 1, "max_steps": 1}}', "length is {'asked': 1, 'max_steps': 1}"),
    ],
)
def test_a_damaged_result_is_refused_but_its_run_counts_as_finished(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_result(tmp_path)
    assert find_result(tmp_path) == Result(status="completed")
    assert is_finished(tmp_path)  # so that it is never overwritten


def test_a_metric_that_no_float_holds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(f'{{"metrics": {{"val/loss": {10**400}}}}}')
    with pytest.raises(ValueError, match=r"^val/loss is 1000"):
        read_result(tmp_path)


def test_each_process_of_a_run_writes_its_provenance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTEXP_COMMAND", "gptexp train seed=1")
    for step in (0, 12, 4):
        write_provenance(tmp_path, step, {"fingerprint": "f"}, {"device": "cpu", "cores": 2})
    names = ["provenance.json", "provenance-4.json", "provenance-12.json"]
    assert [path.name for path in provenance_files(tmp_path)] == names
    found = read_provenance(tmp_path / "provenance-12.json")
    assert (found.command, found.data, found.hardware["cores"]) == ("gptexp train seed=1", {"fingerprint": "f"}, 2)
    assert found.code_sha256 == last_code(tmp_path) is not None
    (tmp_path / "provenance-12.json").write_text('{"schema": 2}')
    with pytest.raises(ValueError, match="reads schema 1"):
        read_provenance(tmp_path / "provenance-12.json")
    assert last_code(tmp_path) is None


def test_the_names_of_a_runs_files_are_defined_only_in_the_layout() -> None:
    names = {layout.METRICS, layout.SAMPLES, layout.RESULT, layout.PROVENANCE, layout.CONFIG, layout.SWEEP}
    names |= {layout.LAST, layout.PREVIOUS, layout.BEST, layout.EVENTS, layout.JOB_LOG}
    repeated = [
        f"{path.relative_to(PACKAGE)}: {node.value}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names and path.name != "layout.py"
    ]
    assert repeated == []
