"""`subprocess.Popen` that forks `python -m gptexp.…` from a process that has imported everything.

A fork has a process id, streams, signals and an exit code of its own, as a started program has; it saves four seconds
of imports. It is no child of the process that asks for it, so psutil doesn't list it there, and it has another command
line. Tests of how processes start and end use subprocess itself.
"""

from __future__ import annotations

import atexit
import importlib
import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support.pictures import PNG

NUMBER = struct.Struct("q")
FORKED = ("gptexp", "submitit")  # packages
# What ranks import in addition to other commands; the last two lazily, in their first step.
OF_RANKS = ("gptexp.training.worker", "gptexp.training.fsdp", "torch._dynamo", "torch.distributed.tensor.parallel")

_address = ""  # of the socket of the process that forks


def use(address: str) -> None:
    """Let `Popen` in this process, and in its forks, ask the process that serves this address."""
    global _address
    _address = address


def replace_popen() -> None:
    """Let all code in this process use the class below, as far as it calls `subprocess.Popen` or `subprocess.run`."""
    subprocess.Popen = Popen  # type: ignore[misc]


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """Forks modules of gptexp; starts any other program as its base class does."""

    _line: socket.socket | None = None  # to the parent of the fork

    def _execute_child(self, args: Any, executable: Any, *others: Any) -> None:
        module = _module(args)
        if module is None:
            super()._execute_child(args, executable, *others)  # type: ignore[misc]
            return
        cwd, env, pipes, session = others[3], others[4], others[8:14], others[-2]
        order = {
            "module": module,
            "arguments": args[args.index(module) + 1 :],
            "cwd": os.fspath(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "session": bool(session),
        }
        sys.stdout.flush()
        self._line = socket.socket(socket.AF_UNIX)
        self._line.connect(_address)
        streams = [given if given != -1 else own for own, given in enumerate((pipes[0], pipes[3], pipes[5]))]
        socket.send_fds(self._line, [b"x"], streams)
        self._line.sendall(json.dumps(order).encode())
        self._line.shutdown(socket.SHUT_WR)
        self.pid = _receive(self._line)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._line is None:
            found: tuple[int, int] = super()._try_wait(wait_flags)  # type: ignore[misc]
            return found
        if wait_flags & os.WNOHANG and not select.select([self._line], [], [], 0)[0]:
            return 0, 0
        status = _receive(self._line)
        self._line.close()
        return self.pid, status

    def _internal_poll(self, *others: Any, **named: Any) -> int | None:
        if self._line is None:
            code: int | None = super()._internal_poll(*others, **named)  # type: ignore[misc]
            return code
        if self.returncode is None and self._waitpid_lock.acquire(False):  # type: ignore[attr-defined]
            try:
                pid, status = (0, 0) if self.returncode is not None else self._try_wait(os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode


def _module(args: Any) -> str | None:
    """Return the module of a command line that is to be forked; None for any other program."""
    if not _address or isinstance(args, str) or list(args[:1]) != [sys.executable] or "-m" not in args[1:3]:
        return None
    module: str = args[args.index("-m") + 1]
    return module if module.partition(".")[0] in FORKED else None


def _receive(line: socket.socket) -> int:
    data = line.recv(NUMBER.size, socket.MSG_WAITALL)
    assert len(data) == NUMBER.size, "the process that forks has ended"
    number: int = NUMBER.unpack(data)[0]
    return number


# ----------------------------------------------------------------------- in the process that forks


def serve(address: str, modules: Sequence[str] = OF_RANKS, end: int | None = None) -> None:
    """Import modules, and fork at each request.

    end: a file descriptor that can be read when the process that started this one ends; default: of multiprocessing.
    """
    from gptexp.compose.registry import register_schemas

    os.setsid()
    for name in modules:
        importlib.import_module(name)
    register_schemas()
    _draw_less()
    if end is None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        end = parent.sentinel
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        waited: list[Any] = [listener, end]
        while end not in select.select(waited, [], [])[0]:
            line, _ = listener.accept()
            if not os.fork():
                os._exit(_guard(line, listener, address))
            line.close()
            _collect()


def _draw_less() -> None:
    """Draw none at the end of a run, which takes 0.3 s, and those of compare as PNG only; tests/report draws all."""
    from matplotlib.figure import Figure

    from gptexp.report import run_curves

    draw = Figure.savefig

    def savefig(figure: Figure, file: Any, **options: Any) -> None:
        if options.get("format") not in ("pdf", "svg"):
            draw(figure, file, **options)

    run_curves._picture = lambda series: PNG
    Figure.savefig = savefig  # type: ignore[method-assign, assignment]


def _collect() -> None:
    """Collect the exit codes of forks that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _guard(line: socket.socket, listener: socket.socket, address: str) -> int:
    """Fork the program, and send its process id and later its status."""
    listener.close()
    _, streams, _, _ = socket.recv_fds(line, 1, 3)
    order = json.loads(b"".join(iter(lambda: line.recv(65536), b"")))
    pid = os.fork()
    if not pid:
        line.close()
        os._exit(_run(order, streams, address))
    for stream in streams:
        os.close(stream)
    try:
        line.sendall(NUMBER.pack(pid))
        line.sendall(NUMBER.pack(os.waitpid(pid, 0)[1]))
    except BrokenPipeError:  # the process that asked has ended
        os.waitpid(pid, 0)
    return 0


def _run(order: Mapping[str, Any], streams: list[int], address: str) -> int:
    """Become the program, and return its exit code."""
    if order["session"]:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    multiprocessing.set_start_method(None, force=True)  # a child of the fork server would use that again
    use(address)
    replace_popen()
    code = _finished(order["module"], order["arguments"])
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _finished(module: str, arguments: list[str]) -> int:
    sys.modules.pop(module, None)  # runpy warns if a module is imported before it is executed
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
