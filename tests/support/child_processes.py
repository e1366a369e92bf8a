"""Commands of gptexp's in children of one process that has imported torch and Lightning once: a start costs no seconds.

The standard library's fork server is that process: it runs no code of its own and starts no thread, so a fork of it is
what a fresh interpreter would be after its imports. A child that starts processes itself starts real ones; those of
`run_quick` and `start` are forks too, where they are commands of gptexp.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from support import forked

COMMANDS = ("train", "prepare", "generate", "evaluate", "predict", "export", "compare", "replay", "verify_resume")
# gptexp.machine.lightning first: what it leaves out of Lightning must not have been imported before.
PRELOAD = [
    "gptexp.machine.lightning",
    *(f"gptexp.{name}" for name in COMMANDS),
    *(f"gptexp.{part}" for part in ("training.run", "data.prepare", "generation.decoding", "objectives.loading")),
    *(
        f"gptexp.commands.{name}"
        for name in ("train", "generate", "evaluate", "predict", "export", "compare", "replay")
    ),
    *(f"gptexp.report.{part}" for part in ("comparison", "plots", "page", "scaling")),
    *("torch.utils.tensorboard", "safetensors.torch", "optuna"),
]
KILLED = -signal.SIGKILL
TEXT = {"encoding": "utf-8", "errors": "replace"}


@dataclass(frozen=True)
class Done:
    """How a command ended: exit code (of a signal its negative number), standard output and error."""

    code: int
    out: str
    err: str


def run(
    module: str,
    *arguments: str,
    cwd: Path,
    source: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> Done:
    """`python -m MODULE ARGUMENTS…` in cwd, with its standard input closed.

    source: a copy of src/ to import gptexp from, in place of the one that is imported already. env: of the command, in
    place of the fork server's.
    """
    return call(_command, module, list(arguments), source, env, cwd=cwd, timeout=timeout)


def call(function: Callable[..., Any], *arguments: Any, cwd: Path, timeout: float = 120) -> Done:
    """Call a function of a module in a child process; at the time limit the child and its children are killed."""
    with tempfile.TemporaryDirectory() as place:
        out, err = Path(place, "out"), Path(place, "err")
        child = server().Process(target=_enter, args=(function, arguments, str(cwd), str(out), str(err)))
        child.start()
        child.join(timeout)
        assert child.pid is not None
        with suppress(ProcessLookupError):  # the child leads its process group; its children can outlive it
            os.killpg(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode is not None
        return Done(child.exitcode, *(file.read_text(encoding="utf-8", errors="replace") for file in (out, err)))


def run_quick(
    module: str, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 120
) -> Done:
    """The same as `run`, for commands that start others; kinds and presets of other packages are not found."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start(module, *arguments, cwd=cwd, env=env, start_new_session=True, **streams, **TEXT)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
    return Done(process.returncode, out, err)


def start(module: str, *arguments: str, **settings: Any) -> subprocess.Popen[Any]:
    """A `subprocess.Popen` of `python -m MODULE ARGUMENTS…`, with the limits of forked.py."""
    forked.use(_forking())
    return forked.Popen([sys.executable, "-m", module, *arguments], **settings)


def replace_popen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `subprocess` in this process start commands of gptexp as `start` does."""
    forked.use(_forking())
    monkeypatch.setattr(subprocess, "Popen", forked.Popen)


@cache
def _forking() -> str:
    """Start the process that forks for `forked.Popen`, and return its address."""
    place = tempfile.TemporaryDirectory(prefix="forks")
    address = f"{place.name}/socket"
    process = server().Process(target=forked.serve, args=(address,))
    process.start()
    atexit.register(place.cleanup)
    atexit.register(process.kill)  # otherwise multiprocessing waits for its end
    while not Path(address).exists():
        assert process.is_alive()
        time.sleep(0.01)
    return address


@cache
def server() -> ForkServerContext:
    """The fork server, started with one thread for linear algebra libraries, which start threads on import."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    before = dict(os.environ)
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"}
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context


def _enter(function: Callable[..., Any], arguments: Sequence[Any], cwd: str, out: str, err: str) -> None:
    """In the child: use a separate process group and folder, and files for standard output and error."""
    os.setsid()
    os.chdir(cwd)
    for path, standard in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), standard)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (open for as long as the process)
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    function(*arguments)


def _command(module: str, arguments: list[str], source: Path | None, env: Mapping[str, str] | None) -> None:
    if env is not None:
        os.environ.clear()
        os.environ.update(env)
    if source is not None:
        sys.path.insert(0, str(source))
        for name in [name for name in sys.modules if name.partition(".")[0] == "gptexp"]:
            del sys.modules[name]
    sys.modules.pop(module, None)  # runpy warns if a module is imported before it is executed
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
