"""`gptexp` and `python -m gptexp` list the subcommands and start the code of `python -m gptexp.X`."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gptexp import __main__ as gptexp
from gptexp import __version__
from gptexp.commands.listing import COMMANDS, find
from gptexp.runs.provenance import command_line
from gptexp.util.entry_point import entry_point, program_name

ERRORS = [
    ("evaluates", "error: evaluates: no such command; did you mean evaluate?\n"),
    ("model=bigram", "error: model=bigram: no such command; `gptexp --help` lists them\n"),
    ("--vesion", "error: --vesion: no such command; did you mean --version?\n"),
]


def test_help_has_one_line_and_an_example_for_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    gptexp.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    for name in COMMANDS:
        (line,) = [line for line in lines if line.startswith(f"  {name} ")]
        assert f"  gptexp {name} " in line
        assert len(line) <= 100


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from gptexp.__main__ import main; main(['--help'])\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'hydra', 'omegaconf', 'numpy', 'argparse', 'yaml')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path, timeout=60)


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    gptexp.main(["--version"])
    assert capsys.readouterr().out == f"gptexp {__version__}\n"


@pytest.mark.parametrize(("name", "message"), ERRORS)
def test_an_unknown_command_is_one_line_with_the_closest(
    name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        gptexp.main([name])
    assert stop.value.code == 2
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("name", COMMANDS)
def test_a_subcommand_runs_the_main_of_its_module(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(sys, "argv", ["gptexp", name, "a=b"])
    monkeypatch.setattr(f"{COMMANDS[name].module}.main", lambda: started.append(list(sys.argv)))
    gptexp.main()
    gptexp.main([name.replace("-", "_"), "a=b"])
    assert started == [[f"gptexp {name}", "a=b"]] * 2


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.hydra])
def test_usage_names_the_command_as_it_was_started(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = find(name)
    assert command is not None
    module = import_module(command.module)
    assert module.parser().prog == f"python -m {command.module.removesuffix('.command_line')}"
    monkeypatch.setattr(sys, "argv", [f"gptexp {name}"])
    assert module.parser().prog == f"gptexp {name}"


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.hydra])
def test_every_command_also_starts_as_a_module(name: str) -> None:
    module = import_module(COMMANDS[name].module.removesuffix(".command_line"))
    source = Path(str(module.__file__)).with_name("__main__.py") if hasattr(module, "__path__") else module.__file__
    assert 'if __name__ == "__main__":\n    main()' in Path(str(source)).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("module", "argv", "expected"),
    [
        ("gptexp.train", ["/src/gptexp/train.py", "seed=2"], "python3 -m gptexp.train seed=2"),
        ("gptexp.__main__", ["gptexp train", "seed=2"], "python3 -m gptexp train seed=2"),
        (None, ["gptexp train", "data.path=my book.txt"], "gptexp train 'data.path=my book.txt'"),
        (None, ["/bin/gptexp-train", "seed=2"], "python3 /bin/gptexp-train seed=2"),
        ("__main__", ["gptexp train", "seed=2"], "gptexp train seed=2"),
    ],
)
def test_provenance_records_the_command_as_typed(
    module: str | None, argv: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = None if module is None else SimpleNamespace(name=module)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=spec, __file__="gptexp"))
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    monkeypatch.setattr(sys, "argv", argv)
    assert command_line() == expected


@pytest.mark.parametrize(
    ("program", "argv", "ours"),
    [
        (SimpleNamespace(__file__="/bin/gptexp", __spec__=None), "/bin/gptexp", True),
        (SimpleNamespace(__file__=r"gptexp.exe/__main__.py", __spec__=None), "gptexp.exe", True),
        (SimpleNamespace(__spec__=SimpleNamespace(name="gptexp.__main__")), "/src/gptexp/__main__.py", True),
        (SimpleNamespace(__file__="/home/me/mine.py", __spec__=None), "mine.py", False),
        (SimpleNamespace(__spec__=SimpleNamespace(name="pytest.__main__")), "gptexp.py", False),
    ],
)
def test_children_ignore_the_current_directory_only_under_our_commands(
    program: Any, argv: str, ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    monkeypatch.setitem(sys.modules, "__main__", program)
    monkeypatch.setattr(sys, "argv", [argv])
    entry_point(lambda: None)()
    assert os.environ["PYTHONSAFEPATH"] == ("1" if ours else "")


def test_python_m_gptexp_starts_the_same_program(tmp_path: Path) -> None:
    def done(*words: str) -> tuple[int, str, str]:
        run = subprocess.run(
            [sys.executable, "-m", *words], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60
        )
        return run.returncode, run.stdout, run.stderr

    error = "error: model.n_lyer=3: no such setting; did you mean model.n_layer?\n"
    assert done("gptexp", "train", "model.n_lyer=3") == done("gptexp.train", "model.n_lyer=3") == (2, "", error)
    assert done("gptexp", "generate")[2].endswith("`gptexp generate --help` lists the options\n")
    assert program_name("gptexp.generate") == "python -m gptexp.generate"
