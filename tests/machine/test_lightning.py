"""Lightning is imported without all of torchmetrics, which stays complete for other importers in the process."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gptexp.machine.lightning import _disable, _lazy

pytest.importorskip("matplotlib")


def output_of(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_start_up_imports_no_plotting_and_user_metrics_can_still_plot() -> None:
    code = """
import sys
import gptexp.machine.lightning
print([name for name in ("matplotlib", "scipy", "transformers", "torchmetrics.functional") if name in sys.modules])
from torchmetrics.utilities import imports
print(bool(imports._MATPLOTLIB_AVAILABLE), bool(imports._SCIPY_AVAILABLE), type(imports._SCIPY_AVAILABLE).__module__)
import matplotlib, torch
matplotlib.use("Agg")
from torchmetrics import MetricCollection
from torchmetrics.aggregation import MeanMetric
metrics = MetricCollection({"a": MeanMetric(), "b": MeanMetric()})
metrics.update(torch.tensor(3.0))
print(len(metrics.plot()), len(metrics["a"].plot()))
try:
    metrics.plot(ax=3, together=True)
except ValueError as error:
    print(error)
"""
    heavy, flags, plots, refused = output_of(code)
    assert heavy == "[]"
    assert flags == "True True lightning_utilities.core.imports"
    assert plots == "2 2"
    assert "to be a matplotlib axis object" in refused


@pytest.mark.slow
def test_torchmetrics_is_complete_after_start_up() -> None:
    facts = """
import torchmetrics, torchmetrics.functional, torchmetrics.text
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultMetric
print(sorted(name for name in dir(torchmetrics) if not name.startswith("__")))
print(sorted(torchmetrics.__all__), torchmetrics.__version__)
print(sorted(torchmetrics.functional.__all__), sorted(torchmetrics.text.__all__))
print(issubclass(_ResultMetric, torchmetrics.Metric), torchmetrics.utilities.plot.plt.__name__)
"""
    assert output_of("import gptexp.machine.lightning\n" + facts) == output_of("import lightning.pytorch\n" + facts)


def test_a_lazy_module_is_executed_at_the_first_missing_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "late_example.py").write_text(
        "import pathlib\nif not pathlib.Path('ready').exists():\n    raise FileNotFoundError\nx = 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "late_example", raising=False)
    module = _lazy("late_example")
    vars(module)["own"] = 7
    assert importlib.import_module("late_example").own == 7
    with pytest.raises(FileNotFoundError):
        _ = module.x
    (tmp_path / "ready").touch()
    assert module.x == 1
    with pytest.raises(AttributeError):
        _ = module.y
    del sys.modules["late_example"]


def test_a_lazy_module_that_is_not_installed_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        _lazy("no_such_module")


HEAVY = ("torch._dynamo", "torch._inductor", "torch.distributed.tensor", "sympy")


def test_a_run_imports_no_compiler_and_leaves_torch_complete(tmp_path: Path) -> None:
    """Placeholders of torch._dynamo must behave as its own names do, once somebody imports it."""
    train = ["train", "optimizer=muon", "model=bigram", "trainer.max_steps=1", "data.val_bytes=512"]
    train.append("callbacks.checkpoint.asynchronous=true")  # in another thread
    code = f"""
import sys
sys.argv = {[*train, "model.block_size=8", "callbacks.samples.tokens=0", f"hydra.run.dir={tmp_path}"]!r}
sys.argv[1] = "optimizer=adamw"
from gptexp.commands.train import run
run()
print([name for name in {HEAVY} if name in sys.modules])
import torch
from torch import nn
import lightning.fabric.wrappers as wrappers
from lightning.pytorch.utilities.compile import from_compiled, to_uncompiled
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
import lightning.pytorch as pl
print(isinstance(nn.Linear(2, 2), wrappers.OptimizedModule), "torch._dynamo" in sys.modules)
compiled = torch.compile(pl.LightningModule(), backend="eager")
print(isinstance(compiled, wrappers.OptimizedModule), isinstance(nn.Linear(2, 2), wrappers.OptimizedModule))
print(issubclass(type(compiled), wrappers.OptimizedModule), type(to_uncompiled(from_compiled(compiled))).__name__)
print(wrappers._unwrap_compiled(compiled)[0] is compiled._orig_mod, torch._dynamo is sys.modules["torch._dynamo"])
"""
    *_, heavy, before, during, kind, after = output_of(code)
    assert heavy == "[]"
    assert before == "False False"
    assert during == "True False"
    assert kind == "True LightningModule"
    assert after == "True True"


def test_a_function_that_is_not_compiled_runs_outside_of_compiled_code() -> None:
    found: list[bool] = []

    @_disable
    def outside(x: torch.Tensor) -> None:
        found.append(torch.compiler.is_compiling())

    def compiled(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        outside(y)
        return y * 2

    outside(torch.ones(2))
    assert torch.compile(compiled, backend="eager")(torch.ones(2)).tolist() == [4.0, 4.0]
    assert found == [False, False]
    assert outside.__name__ == "outside"
