"""`pl`: Lightning without what a plain run does not need. Every module of gptexp imports `pl` from here.

lightning.pytorch needs two classes of torchmetrics. All of torchmetrics imports matplotlib, scipy and transformers if
they are installed, which takes several seconds. So two of its modules are executed at the first access: the package and
its module for plots. Other code in the same process can still import all of torchmetrics.

Lightning also imports torch._dynamo, with sympy and a thousand modules in all, for a class and a decorator. They are
replaced by two that wait for its import. Afterwards sys.modules is as if Lightning had not asked for torch._dynamo.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

PACKAGE, PLOT = "torchmetrics", "torchmetrics.utilities.plot"
DYNAMO = "torch._dynamo"

P = ParamSpec("P")
T = TypeVar("T")


class _Lazy(ModuleType):
    """A module that is executed at the first access to a missing attribute."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":  # looked up by the import system
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(_executed(self), name)

    def __dir__(self) -> list[str]:
        return dir(_executed(self))


def _executed(module: ModuleType) -> ModuleType:
    if isinstance(module, _Lazy):
        assert module.__spec__ is not None
        assert module.__spec__.loader is not None
        # Before the execution, because the imports inside the module access it.
        object.__setattr__(module, "__class__", ModuleType)
        try:
            module.__spec__.loader.exec_module(module)
        except BaseException:
            module.__class__ = _Lazy
            raise
    return module


def _lazy(name: str, path: Iterable[str] | None = None) -> ModuleType:
    """Register a module in sys.modules without executing it."""
    spec = PathFinder.find_spec(name, None if path is None else list(path))
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    module = sys.modules[name] = module_from_spec(spec)
    module.__class__ = _Lazy
    return module


# Placeholders for names of PLOT in modules that import them before PLOT is executed.


class _IsAxes(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _executed(sys.modules[PLOT])._AX_TYPE)


class _Axes(metaclass=_IsAxes):
    """An axis of matplotlib."""


def _plot(*arguments: Any, **settings: Any) -> Any:
    return _executed(sys.modules[PLOT]).plot_single_or_multi_val(*arguments, **settings)


def _import_two_classes() -> None:
    package = _lazy(PACKAGE)
    vars(package)["_logger"] = logging.getLogger(PACKAGE)
    plot = _lazy(PLOT, (f"{folder}/utilities" for folder in package.__path__))
    vars(plot).update(_AX_TYPE=_Axes, _PLOT_OUT_TYPE=object, plot_single_or_multi_val=_plot)
    import torchmetrics.utilities  # before Metric, because they import each other
    from torchmetrics.__about__ import __version__
    from torchmetrics.collections import MetricCollection
    from torchmetrics.metric import Metric

    vars(package).update(__version__=__version__, Metric=Metric, MetricCollection=MetricCollection)
    torchmetrics.utilities.plot = plot  # as an import does


# Placeholders for names of torch._dynamo. Before its import nothing is compiled, and afterwards they pass on to it.


def _imported_dynamo() -> Any:
    module = sys.modules.get(DYNAMO)
    return None if isinstance(module, _Lazy) else module


class _IsCompiled(type):
    def __instancecheck__(cls, value: object) -> bool:
        return (dynamo := _imported_dynamo()) is not None and isinstance(value, dynamo.OptimizedModule)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return (dynamo := _imported_dynamo()) is not None and issubclass(subclass, dynamo.OptimizedModule)


class _Compiled(metaclass=_IsCompiled):
    """A module that torch.compile has returned."""


def _disable(function: Callable[P, T], recursive: bool = True, *, reason: str | None = None) -> Callable[P, T]:
    """Return the function for calls outside of compiled code, as torch._dynamo.disable does."""
    disabled: list[Callable[P, T]] = []

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if not disabled and (dynamo := _imported_dynamo()) is not None:
            disabled.append(dynamo.disable(function, recursive, reason=reason))
        return (disabled[0] if disabled else function)(*args, **kwargs)

    return call


@contextmanager
def _delayed_dynamo() -> Iterator[None]:
    """Provide what Lightning's modules take from torch._dynamo; any other name is a reason to import it."""
    if DYNAMO in sys.modules:
        yield
        return
    import torch

    module = _lazy(DYNAMO, torch.__path__)
    vars(module).update(OptimizedModule=_Compiled, disable=_disable)
    try:
        yield
    finally:
        if isinstance(module, _Lazy):
            del sys.modules[DYNAMO]


def _forget(package: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


if PACKAGE not in sys.modules:
    try:
        _import_two_classes()
    except ImportError:  # a version with another structure is imported in full
        _forget(PACKAGE)

with _delayed_dynamo():
    import lightning.pytorch as pl
from lightning.fabric.plugins.environments.lightning import LightningEnvironment  # noqa: E402
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment  # noqa: E402
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment  # noqa: E402

__all__ = ["LightningEnvironment", "SLURMEnvironment", "TorchElasticEnvironment", "pl"]
