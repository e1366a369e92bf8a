"""Any content of result.json is read, or named in an error."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

pytest.importorskip("scipy")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from gptexp.report.comparison import Question, compare
from gptexp.report.reading import read_runs
from gptexp.report.table import print_comparison
from gptexp.util.errors import RunError
from support.run_folders import make_run

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PARTS = ["status", "metrics", "best", "val", "steps", "tokens", "seconds", "training_seconds", "tokens_per_second"]


@given(
    part=st.sampled_from([*PARTS, "parameters", "resumed_from", "bytes_per_token", "flops_per_token"]),
    value=JSON | st.dictionaries(st.sampled_from(["val/bpb", "tokens", "text_sha256"]), JSON),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_content_of_a_result_is_read_or_named_in_an_error(tmp_path: Path, part: str, value: object) -> None:
    run = make_run(tmp_path / "a", 2.0, result={part: value})
    runs, left_out = read_runs([run])
    assert len(runs) + len(left_out) == 1
    assert all(re.match(r"unfinished|failed|result\.json is damaged", excluded.reason) for excluded in left_out)
    for metric in {name for run in runs for name in run.metrics}:
        with contextlib.suppress(RunError):  # for example after a divergence
            print_comparison(Console(file=io.StringIO()), compare(runs, [], Question(metric=metric)))
