"""`pl`: Lightning, without all the metrics and plots of torchmetrics.

lightning.pytorch imports torchmetrics, of which it needs two classes. All of torchmetrics imports matplotlib, scipy
and transformers wherever they are installed, which takes several seconds and which no run of gptexp needs. So two of
its modules run when something of them is asked for: the package itself, and the one that plots. Whoever imports
torchmetrics in the same process, before or after, has all of it. Every module takes `pl` from here.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any

PACKAGE, PLOT = "torchmetrics", "torchmetrics.utilities.plot"


class _Late(ModuleType):
    """A module that is executed when something is asked for that it doesn't have yet."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":  # what the import system looks for
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(_executed(self), name)

    def __dir__(self) -> list[str]:
        return dir(_executed(self))


def _executed(module: ModuleType) -> ModuleType:
    if isinstance(module, _Late):
        assert module.__spec__ is not None
        assert module.__spec__.loader is not None
        # From here on it is an ordinary module, to its own imports, too.
        object.__setattr__(module, "__class__", ModuleType)
        try:
            module.__spec__.loader.exec_module(module)
        except BaseException:
            module.__class__ = _Late
            raise
    return module


def _late(name: str, path: Iterable[str] | None = None) -> ModuleType:
    """Put a module where imports look for it, without executing it."""
    spec = PathFinder.find_spec(name, None if path is None else list(path))
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    module = sys.modules[name] = module_from_spec(spec)
    module.__class__ = _Late
    return module


# What stands for names of PLOT in the modules that import them before it is executed.


class _IsAxes(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _executed(sys.modules[PLOT])._AX_TYPE)


class _Axes(metaclass=_IsAxes):
    """An axis of matplotlib, if that is installed."""


def _plot(*arguments: Any, **settings: Any) -> Any:
    return _executed(sys.modules[PLOT]).plot_single_or_multi_val(*arguments, **settings)


def _import_two_classes() -> None:
    package = _late(PACKAGE)
    vars(package)["_logger"] = logging.getLogger(PACKAGE)
    plot = _late(PLOT, (f"{folder}/utilities" for folder in package.__path__))
    vars(plot).update(_AX_TYPE=_Axes, _PLOT_OUT_TYPE=object, plot_single_or_multi_val=_plot)
    import torchmetrics.utilities  # before Metric: they import each other
    from torchmetrics.__about__ import __version__
    from torchmetrics.collections import MetricCollection
    from torchmetrics.metric import Metric

    vars(package).update(__version__=__version__, Metric=Metric, MetricCollection=MetricCollection)
    torchmetrics.utilities.plot = plot  # as an import would


if PACKAGE not in sys.modules:
    try:
        _import_two_classes()
    except ImportError:  # a version that is put together differently: imported whole
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]

import lightning.pytorch as pl  # noqa: E402
from lightning.fabric.plugins.environments.lightning import LightningEnvironment  # noqa: E402
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment  # noqa: E402
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment  # noqa: E402

__all__ = ["LightningEnvironment", "SLURMEnvironment", "TorchElasticEnvironment", "pl"]
