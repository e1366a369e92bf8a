"""--device: weights, caches and batches are on the device, and the results are those of the CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from gptexp.machine import hardware
from gptexp.models.build import build_model
from gptexp.models.placement import device_of, place
from gptexp.util.options import DEVICES
from support.emulated_device import NAME, DeviceTensor, emulated
from support.small_gpt import small

COMMANDS = ["generate", "evaluate", "predict", "commands.inspect", "commands.novelty"]
PROMPT = "A grey cat counts"
Output = Callable[..., str]


@pytest.fixture
def output(runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Output:
    """Run a command in this process; return what it prints."""
    monkeypatch.chdir(runs)

    def run(module: str, *arguments: str) -> str:
        import_module(f"gptexp.{module}").main([*arguments, "--logs", "."])
        return capsys.readouterr().out

    return run


def close(found: Any, expected: Any) -> None:
    """Check that two JSON values are equal, numbers to rounding."""
    assert type(found) is type(expected)
    if isinstance(found, dict):
        assert found.keys() == expected.keys()
        for key in found:
            close(found[key], expected[key])
    elif isinstance(found, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            close(one, other)
    elif isinstance(found, float):
        assert found == pytest.approx(expected, rel=1e-4, abs=2e-5)
    else:
        assert found == expected


LINES = [
    ("generate", "gpt", "--prompt", PROMPT, "--prompt", "The", "--num-samples", "2", "--max-new-tokens", "40"),
    ("generate", "words", "--temperature", "0", "--max-new-tokens", "30"),
    ("generate", "bigram", "--prompt", PROMPT),
]
JSON_LINES = [
    ("evaluate", "gpt", "--json"),
    ("evaluate", "words", "--text", "some.txt", "--stride", "5", "--json"),
    ("evaluate", "bigram", "--split", "train", "--batch-size", "3", "--json"),
    ("evaluate", "gpt", "--lambada", "lambada.jsonl", "--json"),
    ("commands.inspect", "gpt", "--prompt", PROMPT, "--json"),
    ("commands.inspect", "words", "--against", "bigram", "--json"),
    ("commands.novelty", "gpt", "--samples", "3", "--tokens", "12", "--json"),
]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_a_device_writes_the_text_of_the_cpu(output: Output, monkeypatch: pytest.MonkeyPatch, line: list[str]) -> None:
    expected = output(*line, "--device", "cpu")
    with emulated(monkeypatch) as operations:
        assert output(*line) == expected
        assert operations() > 100


@pytest.mark.parametrize("line", JSON_LINES, ids=" ".join)
def test_a_device_gives_the_numbers_of_the_cpu(
    output: Output, runs: Path, monkeypatch: pytest.MonkeyPatch, line: list[str]
) -> None:
    (runs / "lambada.jsonl").write_text('{"text": "A grey cat sleeps on the"}\n{"text": "nobody answers her"}\n')
    monkeypatch.setattr("gptexp.inspection.inspect.packed", lambda weights: weights.tolist())  # in full
    # torch separates tied parameters when it moves them to a subclass of Tensor, as the emulation has.
    monkeypatch.setattr("gptexp.inspection.inspect.count_parameters", lambda model: 0)
    expected = json.loads(output(*line, "--device", "cpu"))
    with emulated(monkeypatch) as operations:
        close(json.loads(output(*line)), expected)
        assert operations() > 20


def test_the_emulated_device_refuses_what_a_gpu_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with emulated(monkeypatch):
        there = torch.ones(3, device=NAME)
        assert isinstance(there, DeviceTensor)
        assert (there * 2 + torch.tensor(1)).tolist() == [3, 3, 3]
        with pytest.raises(AssertionError, match="mixes devices"):
            there + torch.ones(3)


@pytest.mark.parametrize("module", COMMANDS)
def test_a_missing_device_is_one_error_in_every_command(
    module: str, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    text = ["--text", "The cat"] if module == "predict" else []
    with pytest.raises(SystemExit) as stop:
        import_module(f"gptexp.{module}").main(["gpt", *text, "--device", "cuda", "--logs", "."])
    assert stop.value.code == 2
    expected = "error: --device=cuda: torch finds no CUDA GPU on this machine; available: cpu\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"),
    [(False, False, "cpu"), (False, True, "mps"), (True, False, "cuda"), (True, True, "cuda")],
)
def test_auto_takes_a_gpu_if_there_is_one(cuda: bool, mps: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert hardware.find_device("auto") == chosen
    assert [hardware.find_device(name) for name in DEVICES[1:] if {"cuda": cuda, "mps": mps}.get(name, True)]


def test_weights_are_in_the_requested_precision() -> None:
    def model() -> torch.nn.Module:
        return build_model(small(), 11, seed=1).to(torch.float64)

    for precision, dtype in {"32-true": torch.float32, "bf16-mixed": torch.float32, "64-true": torch.float64}.items():
        placed = model()
        placement = place(placed, "cpu", precision)
        assert {p.dtype for p in placed.parameters()} == {dtype}
        with placement.context():
            product = torch.nn.functional.linear(torch.ones(2, 3), torch.ones(4, 3))
        assert product.dtype == (torch.bfloat16 if precision == "bf16-mixed" else torch.float32)
    assert device_of(model()).type == "cpu"
    with pytest.raises(ValueError, match="--precision=64-true: an Apple GPU has no float64; use --device cpu"):
        place(model(), "mps", "64-true")


def test_a_model_larger_than_the_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "free_memory", lambda device: 2**10)
    message = r"--device=cuda: the weights need 0\.0 GiB, but 0\.0 GiB are free on this GPU"
    with pytest.raises(ValueError, match=message):
        place(build_model(small(), 11, seed=1), "cuda", "32-true")


@pytest.mark.parametrize("line", [LINES[1], JSON_LINES[0], JSON_LINES[4], JSON_LINES[6]], ids=" ".join)
def test_commands_compute_in_bf16_on_request(output: Output, line: list[str]) -> None:
    wide, narrow = (output(*line, "--precision", precision) for precision in ("32-true", "bf16-mixed"))
    assert wide.strip()
    assert narrow.strip()
    if line[0] == "evaluate":
        scores = [json.loads(found)["loss"] for found in (wide, narrow)]
        assert scores[0] != scores[1]
        assert scores[0] == pytest.approx(scores[1], rel=1e-2)


def test_the_numpy_reference_refuses_a_gpu(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        output("generate", "gpt", "--backend", "numpy", "--device", "cuda")
    assert "error: --device=cuda: --backend numpy computes on the CPU" in capsys.readouterr().err
