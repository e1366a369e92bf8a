"""Entry points: no module of the current directory is executed, and output never ends a command."""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from gptexp import __version__
from gptexp.commands.listing import COMMANDS
from gptexp.compose.presets import conf_dir
from gptexp.util.entry_point import entry_point
from gptexp.util.options import OptionParser, command
from gptexp.util.package import PACKAGE


@pytest.fixture
def untrusted_folder(workplace: Path) -> Path:
    """A current directory with modules that must not be executed."""
    (workplace / "hydra_plugins").mkdir()
    for module in ("yaml.py", "joblib.py", "hydra_plugins/untrusted.py"):
        (workplace / module).write_text("print('a module of the current directory ran')\nraise SystemExit(9)\n")
    return workplace


@pytest.mark.parametrize("module", ["gptexp", "gptexp.train"])
def test_modules_in_the_current_directory_are_not_executed(untrusted_folder: Path, module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (f"gptexp {__version__}\n", 0), done.stderr


def test_child_processes_do_not_execute_modules_there_either(
    untrusted_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    entry_point(lambda: None)()
    assert not os.environ["PYTHONSAFEPATH"], "the environment of other programs must not change"
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__="/usr/bin/gptexp-train"))
    entry_point(lambda: None)()
    done = subprocess.run([sys.executable, "-m", "joblib"], capture_output=True, text=True, check=False)
    assert "current directory" not in done.stdout


def test_a_package_installed_in_the_current_directory_is_found(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "gptexp", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(conf_dir(), tmp_path / "gptexp/conf")
    code = "import gptexp.__main__ as m, sys; print(m.__file__); m.main(['--version'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == f"{tmp_path}/gptexp/__main__.py\ngptexp {__version__}\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp936"])
def test_characters_that_a_console_cannot_show_are_replaced(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding=encoding))
    entry_point(lambda: print("val/bpb 2.1 · 三国 · é ☺"))()
    text = shown.getvalue().decode(encoding)
    assert text.startswith("val/bpb 2.1 ")
    assert "?" in text


MODULES = [command.module for command in COMMANDS.values()]


@pytest.mark.parametrize("module", ["gptexp.__main__", *MODULES, "gptexp.training.worker"])
def test_every_command_uses_the_common_entry_point(module: str) -> None:
    assert import_module(module).main.__wrapped__.__module__ == module


@pytest.mark.parametrize("code", [None, 0, 3])
def test_a_command_ends_with_the_exit_code_of_its_function(code: int | None) -> None:
    given: list[argparse.Namespace] = []

    @command(OptionParser)
    def main(options: argparse.Namespace) -> int | None:
        given.append(options)
        return code

    with nullcontext() if code is None else pytest.raises(SystemExit, match=f"^{code}$"):
        main([])
    assert given == [argparse.Namespace()]


def test_help_ends_quietly_if_its_output_pipe_is_closed(tmp_path: Path) -> None:
    shell = f"{sys.executable} -m gptexp --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) in (("141\n", ""), ("0\n", ""))  # 0: it had already written everything


OPTION_ERRORS = [
    ("generate", ["latest", "--max-tokens", "5"], "--max-tokens: no such option; did you mean --max-new-tokens?"),
    ("generate", ["latest", "--temperature", "hot"], "--temperature: invalid float value: 'hot'"),
    ("generate", ["latest", "Harry", "said"], "Harry: unexpected argument; quote text that contains spaces"),
    ("evaluate", [], "the following arguments are required: RUN"),
    ("compare", ["logs", "--sort"], "--sort: no such option"),
    ("export", ["latest", "--out"], "--out: expected one argument"),
]


@pytest.mark.parametrize(("module", "arguments", "reported"), OPTION_ERRORS)
def test_a_wrong_option_gives_a_one_line_error(
    module: str, arguments: list[str], reported: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        import_module(f"gptexp.{module}").parser().parse_args(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {reported}; `python -m gptexp.{module} --help` lists the options\n"
