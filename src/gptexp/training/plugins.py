"""Callbacks and loggers that the user adds to a run, from a fixed list of classes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any

from gptexp.config.environment_variables import read_variables
from gptexp.config.plugins import PLUGINS
from gptexp.machine.lightning import pl
from gptexp.util.text import first_line, without_passwords

LONGEST = 300  # characters of an error
rank_zero_only = pl.utilities.rank_zero_only


class LastingLogger(pl.loggers.Logger):
    """Passes everything on to a user's logger. After its first failure a warning names it, and the run goes on.

    make: creates the logger.
    """

    def __init__(self, setting: str, make: Callable[[], pl.loggers.Logger]) -> None:
        super().__init__()
        self.setting = setting
        self._logger: Any = None
        self._guarded(lambda: self._start(make))

    def _start(self, make: Callable[[], pl.loggers.Logger]) -> None:
        logger: Any = make()
        _ = logger.experiment  # a logger connects to its service here
        self._logger = logger

    def _guarded(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # the errors of services have no common class
            self._logger = None
            self._warn(first_line(error))

    @rank_zero_only
    def _warn(self, reason: str) -> None:
        reason = without_passwords(reason)[:LONGEST]
        warnings.warn(f"{self.setting}: {reason}; the run continues without this logger", stacklevel=1)

    def _pass_on(self, method: str, *arguments: Any, **options: Any) -> None:
        if self._logger is not None:
            self._guarded(lambda: getattr(self._logger, method)(*arguments, **options))

    @property
    def name(self) -> str:
        return self.setting

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *arguments: Any, **options: Any) -> None:
        self._pass_on("log_hyperparams", *arguments, **options)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._pass_on("log_metrics", dict(metrics), step=step)

    def save(self) -> None:
        self._pass_on("save")

    def finalize(self, status: str) -> None:
        """End the run in the service, so that the next job of a sweep in this process starts another one."""
        self._pass_on("finalize", status)
        if self._logger is not None:
            self._guarded(lambda: getattr(self._logger.experiment, "finish", lambda: None)())


def load_plugins(group: str, plugins: dict[str, Any]) -> dict[str, Any]:
    """Create the user's plug-ins of a group (callbacks, logger), by name. A logger that can't start gives a warning.

    Raises:
        ValueError: a `_target_` that is not in the list, or wrong arguments of a callback.
    """
    created = {}
    for name, settings in plugins.items():
        if settings is None:
            continue
        target = settings.get("_target_") if isinstance(settings, dict) else None
        if target not in PLUGINS[group]:
            raise ValueError(
                f"{group}.plugins.{name}._target_={target}: not allowed; "
                f"choose one of {', '.join(sorted(PLUGINS[group]))}"
            )
        module, _, cls = target.rpartition(".")
        arguments = {key: value for key, value in settings.items() if key != "_target_"}
        if any("_target_" in str(value) for value in arguments.values()):
            raise ValueError(f"{group}.plugins.{name}: a plug-in inside a plug-in is not allowed")
        make = partial(_create, module, cls, arguments)
        if group == "logger":
            created[name] = LastingLogger(f"{group}.plugins.{name}", make)
            continue
        try:
            created[name] = make()
        except Exception as error:  # libraries raise any kind for a wrong setup
            raise ValueError(f"{group}.plugins.{name}: {first_line(error)}") from error
    return created


def _create(module: str, name: str, arguments: dict[str, Any]) -> Any:
    return getattr(import_module(module), name)(**read_variables(arguments))
