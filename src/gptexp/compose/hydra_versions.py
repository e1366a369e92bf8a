"""What differs between the versions of Hydra and OmegaConf that gptexp runs with, and of Python (no torch)."""

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
from omegaconf import OmegaConf

# Hydra 1.3 wants to be told whose defaults to take, and 1.4 warns where it is told.
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}
# OmegaConf 2.4 has renamed it; under the new name 2.3 has an older function.
register_resolver: Callable[..., None] = (
    OmegaConf.register_new_resolver if omegaconf.__version__.startswith("2.3.") else OmegaConf.register_resolver
)


class _Parser(argparse.ArgumentParser):
    """Sets a help that isn't a string after it was added: the argparse of Python 3.14 refuses it (hydra #3121)."""

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
    """A module with another value under a name; unittest.mock would import asyncio for it at every start."""
    former = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, former)


@contextmanager
def _own_parser() -> Iterator[None]:
    """Let Hydra make its parser of our class, in Hydra's module alone."""
    module = SimpleNamespace(**{**vars(argparse), "ArgumentParser": _Parser})
    with _replaced(utils, "argparse", module):
        yield


def arguments_parser() -> argparse.ArgumentParser:
    """Hydra's own parser of a command line: its flags, and all else as overrides."""
    with _own_parser():
        return utils.get_args_parser()


def run_task(task: Callable[..., Any], config_path: str, config_name: str) -> None:
    """Let Hydra compose the command line of this process, and run the task or the sweep that it asks for."""
    main = sys.modules["hydra.main"]
    with _replaced(main, "get_args_parser", arguments_parser):
        hydra.main(**VERSION_BASE, config_path=config_path, config_name=config_name)(task)()
