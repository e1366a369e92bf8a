"""Settings that depend on the machine: precision, compilation and devices."""

from __future__ import annotations

import importlib.util
import shutil
import sysconfig
import warnings
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from gptexp.compose.composition import compose
from gptexp.config.training import Accelerator
from gptexp.machine import hardware


@pytest.mark.parametrize(
    ("bf16", "amx", "width", "expected"),
    [
        (False, False, 768, "32-true"),
        (True, True, 768, "bf16-mixed"),
        (True, True, 128, "32-true"),
        (True, False, 128, "bf16-mixed"),
        (True, False, 32, "32-true"),
    ],
)
def test_auto_selects_bf16_on_a_cpu_that_is_faster_with_it(
    bf16: bool, amx: bool, width: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cpu_has_bf16", lambda: bf16)
    monkeypatch.setattr(hardware, "cpu_has_amx", lambda: amx)
    config = compose([f"model.n_embd={width}", "trainer=cpu"])
    assert config.trainer.accelerator is Accelerator.cpu
    chosen, why = hardware.choose_precision(config)
    assert chosen == expected
    assert why


def test_a_long_run_is_compiled_on_a_gpu_that_supports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "accelerator_of", lambda config: "cuda")
    monkeypatch.delenv("CC", raising=False)
    tools: dict[str, object] = {"triton": True, "gcc": "/usr/bin/gcc"}
    monkeypatch.setattr(importlib.util, "find_spec", tools.get)
    monkeypatch.setattr(shutil, "which", tools.get)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    config = compose([])

    def chosen() -> tuple[bool, str]:
        return hardware.choose_compile(config, 1e18)

    assert chosen() == (False, f"{tmp_path / 'Python.h'} is missing")
    (tmp_path / "Python.h").touch()
    assert chosen() == (True, "the run is long enough")
    assert hardware.choose_compile(config, 1e15) == (False, "the run is too short")
    del tools["gcc"]
    assert chosen() == (False, "a C compiler is missing")
    monkeypatch.setenv("CC", "clang-19")
    assert chosen()[0]
    del tools["triton"]
    assert chosen() == (False, "the package triton is missing")


@pytest.mark.parametrize("bf16", [True, False])
def test_a_resumed_run_keeps_its_precision_on_another_machine(bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cpu_has_bf16", lambda: bf16)
    config = compose(["model.n_embd=768", "trainer=cpu"])
    here, why = hardware.choose_precision(config)
    other = {"bf16-mixed": "32-true", "32-true": "bf16-mixed"}[here]
    assert hardware.choose_precision(config, source=here) == (here, why)
    assert hardware.choose_precision(config, source=other) == (
        other,
        f"as before; a new run would use {here} here: {why}",
    )


MATMUL = cast(Any, torch.backends.mkldnn).matmul  # missing in torch's stubs


@pytest.mark.parametrize(("maker", "amx"), [("AuthenticAMD", False), ("AuthenticAMD", True), ("GenuineIntel", False)])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_full_precision_products_are_not_rounded_and_restore_the_flags(
    maker: str, amx: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "_cpu_line", lambda field: maker)
    monkeypatch.setattr(hardware, "cpu_has_amx", lambda: amx)  # on a CPU with AMX, the products show its effect
    before, x = MATMUL.fp32_precision, torch.randn(96, 80, generator=torch.Generator().manual_seed(1))
    expected = (maker, amx, device) == ("AuthenticAMD", False, "cpu") and products_stay_exact()
    with hardware.full_width_products(device) as full_width:
        assert full_width is expected
        assert MATMUL.fp32_precision == ("bf16" if expected else before)
        torch.testing.assert_close(x @ torch.eye(80), x, rtol=0, atol=0)
        with hardware.full_width_products(device) as inner:
            assert inner is expected
        assert MATMUL.fp32_precision == ("bf16" if expected else before)
    assert MATMUL.fp32_precision == before


def products_stay_exact() -> bool:
    """Whether this CPU computes float32 products exactly where rounding to bf16 is allowed."""
    before, x = MATMUL.fp32_precision, torch.full((64, 64), 1 + 2**-20)
    try:
        MATMUL.fp32_precision = "bf16"
        return torch.equal(x @ torch.eye(64), x)
    finally:
        MATMUL.fp32_precision = before


def test_an_explicit_precision_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_cpu_line", lambda field: "AuthenticAMD")
    monkeypatch.setattr(hardware, "cpu_has_amx", lambda: False)
    before, MATMUL.fp32_precision = MATMUL.fp32_precision, "tf32"
    try:
        with hardware.full_width_products():
            assert MATMUL.fp32_precision == "tf32"
        assert MATMUL.fp32_precision == "tf32"
    finally:
        MATMUL.fp32_precision = before


@pytest.mark.parametrize(
    ("gpus", "batch", "taken"), [(5, 12, 4), (7, 12, 6), (8, 12, 6), (8, 480, 8), (3, 7, 1), (6, 12, 6), (1, 5, 1)]
)
def test_auto_uses_the_most_gpus_that_divide_the_batch(
    gpus: int, batch: int, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(monkeypatch, gpus)
    config = compose([f"data.global_batch_size={batch}"])
    with warnings.catch_warnings(record=True) as reported:
        warnings.simplefilter("always")
        assert hardware.processes_of(config) == taken
    assert [f"uses {taken} of {gpus} GPUs" in str(notice.message) for notice in reported] == [True] * (taken < gpus)


def test_auto_respects_an_explicit_micro_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 8)
    with pytest.warns(UserWarning, match="uses 3 of 8 GPUs"):
        assert hardware.processes_of(compose(["data.micro_batch_size=4"])) == 3


def test_an_explicit_number_of_gpus_is_checked_before_any_process_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from gptexp.training import launch
    from gptexp.training.experiment import run_experiment

    with_gpus(monkeypatch, 4)
    monkeypatch.setattr(launch, "_spawn", lambda *_: pytest.fail("a process was started"))
    with pytest.raises(ValueError, match=r"data\.global_batch_size=12: must be a multiple of 8"):
        compose(["trainer.devices=8"])
    with pytest.raises(ValueError, match=r"^trainer\.devices=6: torch finds 4 GPUs on this machine$"):
        run_experiment(compose(["trainer.devices=6"]), tmp_path / "run")


def with_gpus(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
