"""A mutated untrusted file is read or refused in one line; it never raises another exception."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptexp.commands.replay import read_bundle, replay
from gptexp.compose.composition import config_from_plain
from gptexp.objectives.loading import load_trained
from gptexp.report.listing.rows import rows
from gptexp.report.listing.table import columns, lines, watched
from gptexp.report.reading import read_flat_settings, read_run
from gptexp.runs.finding import stored_settings
from gptexp.runs.opening import load
from support.checkpoints import small_checkpoint
from support.run_folders import make_run, sweep_of

few = settings(
    derandomize=True, max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)  # fmt: skip
PLAIN = [None, True, 0, -1, 1, 3, 10**6, 2**63 - 1, 1e9, float("nan"), float("inf"), "", "x", "${x}", "gpt", "/**", [],
         [1], ["a"], {}, {"kind": "gpt"}, {"a": 1}, [[1, 2]]]  # fmt: skip
TENSORS = [torch.zeros(0), torch.zeros(2, 3), torch.ones(3, dtype=torch.int64), torch.tensor(5),
           torch.full((1, 8), 10**9), torch.zeros(8, dtype=torch.float16), torch.zeros(2) > 0]  # fmt: skip


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value inside a nested value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*above, key)
        yield from places(child, (*above, key))


def mutated(draw: Callable[[Any], Any], plain: dict[str, Any], leaves: list[Any]) -> dict[str, Any]:
    plain = copy.deepcopy(plain)
    *way, last = draw(st.sampled_from(list(places(plain))))
    at: Any = plain
    for key in way:
        at = at[key]
    how = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
    if how == "remove" and isinstance(at, dict):
        del at[last]
    elif how == "add" and isinstance(at, dict):
        at["other"] = draw(st.sampled_from(leaves))
    else:
        at[last] = draw(st.sampled_from(leaves))
    return plain


def refusal(read: Callable[[], object]) -> str:
    """The error message of a refused file, or an empty string. Any other exception fails the test."""
    try:
        read()
    except (ValueError, OSError) as error:
        return str(error) or type(error).__name__
    return ""


@cache
def checkpoint() -> dict[str, Any]:
    best = {"val/loss": 1.0, "step": 2}
    return small_checkpoint(metrics={"last": best, "best": best, "seconds": 1.0, "sums": [1.0, 2.0, 3.0]}).as_plain()


@cache
def bundle() -> dict[str, Any]:
    held = {name: checkpoint()[name] for name in ("model", "config", "tokenizer", "data")}
    zeros, ones = torch.zeros(1, 8, dtype=torch.int64), torch.ones(1, 8, dtype=torch.int64)
    batch = {"rank": 0, "micro": 0, "tokens": zeros, "targets": ones}
    reported = {"format": "gptexp bundle", "version": 1, "what": "loss", "step": 3, "seed": 1, "precision": "32-true"}
    return {**reported, **held, "batches": [batch]}


def opened(path: Path) -> None:
    held = load(path)
    for merge in (True, False):
        _, model = load_trained(held, path, merge=merge)
    model(torch.zeros(1, 2, dtype=torch.int64))


@few
@given(st.data())
def test_a_mutated_checkpoint_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.ckpt"
    torch.save(mutated(data.draw, checkpoint(), [*PLAIN, *TENSORS]), path)
    assert "\n" not in refusal(lambda: opened(path))


@few
@given(st.data())
def test_a_mutated_bundle_is_replayed_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.pt"
    torch.save(mutated(data.draw, bundle(), [*PLAIN, *TENSORS]), path)
    assert "\n" not in refusal(lambda: replay(read_bundle(path)))


@few
@given(place=st.integers(0, 10**6), byte=st.integers(1, 255))
def test_a_changed_byte_of_a_checkpoint_is_detected_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "byte.ckpt"
    torch.save(checkpoint(), path)
    changed = bytearray(path.read_bytes())
    changed[place % len(changed)] ^= byte
    path.write_bytes(changed)
    if why := refusal(lambda: load(path)):
        assert str(path) in why
        return
    found = load(path)
    assert all(torch.equal(found.model[name], value) for name, value in checkpoint()["model"].items())
    assert (found.config, found.metrics) == (checkpoint()["config"], checkpoint()["metrics"])


@few
@given(st.data())
def test_mutated_settings_are_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    run = tmp_path_factory.getbasetemp() / "changed"
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run / "checkpoints/last.ckpt").touch()
    plain = mutated(data.draw, checkpoint()["config"], PLAIN)
    (run / "config.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")
    for read in (lambda: stored_settings(str(run)), lambda: config_from_plain(plain), lambda: read_flat_settings(run)):
        assert "\n" not in refusal(read)


@few
@given(data=st.data(), name=st.sampled_from(["result.json", "metrics.csv", "provenance.json", "samples.md"]))
def test_a_mutated_file_of_a_run_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str
) -> None:
    from gptexp.report.reading import last_sample

    run = make_run(tmp_path_factory.mktemp("run"))
    whole = (run / name).read_bytes() if (run / name).exists() else b""
    cut = data.draw(st.integers(0, len(whole)))
    (run / name).write_bytes(
        whole[:cut] + data.draw(st.binary(max_size=6)) + whole[cut + data.draw(st.integers(0, 9)) :]
    )
    assert "\n" not in refusal(lambda: read_run(run, read_flat_settings(run)))
    last_sample(run)


@few
@given(data=st.data(), name=st.sampled_from(["config.yaml", "result.json", "metrics.csv", "sweep.yaml"]))
def test_a_run_with_a_mutated_file_is_always_listed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str
) -> None:
    logs = tmp_path_factory.mktemp("logs")
    run = make_run(sweep_of(logs / "sweep", "job") / "job", result={"status": "failed", "error": "x"})
    path = logs / "sweep" / name if name == "sweep.yaml" else run / name
    if name == "metrics.csv":
        cells = [line.split(",") for line in path.read_text().splitlines()]
        row = data.draw(st.sampled_from(cells))
        huge = ["", "x", "nan", "-inf", "1e999", "9" * 30, "-1", "9" * 400, "9" * 5000, "1_0", '"', "٣"]
        row[data.draw(st.integers(0, len(row) - 1))] = data.draw(st.sampled_from(huge))
        path.write_text("\n".join(",".join(row) for row in cells) + "\n", encoding="utf-8")
    else:
        plain = mutated(data.draw, yaml.safe_load(path.read_text(encoding="utf-8")), [*PLAIN, 10**400, [{}], ["x"]])
        path.write_text(yaml.safe_dump(plain) if name != "result.json" else json.dumps(plain), encoding="utf-8")
    found = rows(logs)
    assert {Path(row.run) for row in found} == {logs / "sweep", run}
    json.dumps([row.as_plain() for row in found], allow_nan=False)
    for width in (80, None):
        assert all(line.isprintable() for line in lines(found, {**columns(found), **watched(found)}, width))
