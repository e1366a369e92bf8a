"""Differences between the supported versions of Hydra, OmegaConf and Python. No torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NoReturn

import hydra
import omegaconf
from hydra._internal import utils
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

# Hydra 1.3 warns without version_base, and Hydra 1.4 warns with it.
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}
# OmegaConf 2.4 renamed the function; in 2.3 the new name is that of an older function.
register_resolver: Callable[..., None] = (
    OmegaConf.register_new_resolver if omegaconf.__version__.startswith("2.3.") else OmegaConf.register_resolver
)


class _Parser(argparse.ArgumentParser):
    """Accepts help texts that are not strings, which argparse of Python 3.14 refuses (hydra #3121)."""

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        text = settings.pop("help", None)
        is_text = text is None or isinstance(text, str)
        action = super().add_argument(*names, **settings, **({"help": text} if is_text else {}))
        action.help = text
        return action

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


@contextmanager
def _replaced(module: object, name: str, value: object) -> Iterator[None]:
    """Replace an attribute of a module temporarily. unittest.mock would import asyncio, which is slow."""
    former = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, former)


@contextmanager
def _replaced_parser() -> Iterator[None]:
    """Let Hydra create its parser with the class above; argparse itself stays unchanged."""
    module = SimpleNamespace(**{**vars(argparse), "ArgumentParser": _Parser})
    with _replaced(utils, "argparse", module):
        yield


def arguments_parser() -> argparse.ArgumentParser:
    """Return Hydra's parser of a command line, which has its flags and reads other words as overrides."""
    with _replaced_parser():
        return utils.get_args_parser()


def _mode_of_last_composition(hydra: Hydra, config_name: str | None, overrides: list[str]) -> Any:
    """Return hydra.mode, for which Hydra would compose everything once more, which takes 0.2 s."""
    return HydraConfig.get().mode if HydraConfig.initialized() else None


def run_task(task: Callable[..., Any], config_path: str, config_name: str) -> None:
    """Let Hydra compose the command line of this process, which was composed to check it, and run the task or sweep."""
    main = sys.modules["hydra.main"]
    with _replaced(main, "get_args_parser", arguments_parser), _replaced(Hydra, "get_mode", _mode_of_last_composition):
        hydra.main(**VERSION_BASE, config_path=config_path, config_name=config_name)(task)()
