"""README and docs tell the truth: every command runs, every link leads somewhere, every setting exists.

Commands run as typed but for the overrides of shrink.py, in the order of reading and in one directory, so that `latest`
and `logs/sweeps/tokenizer` are what the text says. What can't run in a test is checked as far as it can be; KINDS says
what that is, how far, and why. A command of no known kind fails.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
import time
import tomllib
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gptexp.commands.listing import COMMANDS
from gptexp.compose.composition import compose
from gptexp.compose.messages import check_groups, setting_names
from gptexp.compose.overrides import jobs_of
from gptexp.compose.presets import conf_dir
from gptexp.compose.registry import groups, register_schemas
from gptexp.sweep import launchers
from support import child_processes, workplace
from support.documented_commands import gptexp_part, noted, run_command, words
from support.documents import (
    ADD_YOUR_OWN,
    CHINESE,
    DOCUMENTS,
    LINK,
    ROOT,
    SPAN,
    TEXTS,
    Command,
    blocks,
    commands,
    prose,
    read,
)

EVERY = [*DOCUMENTS, *CHINESE, *TEXTS, ADD_YOUR_OWN]
TRAIN = re.compile(r"(gptexp |python -m gptexp\.)train\b")
SHELLS = ("bash", "zsh", "fish")
OVERRIDING = ("gptexp.train", "gptexp.prepare", "gptexp.verify_resume")  # take settings, not options


# ------------------------------------------------------------------- commands of gptexp


def check_command(command: Command, place: Path) -> None:
    """Have a command of gptexp's parsed: options by its parser, settings by their names."""
    module, arguments = gptexp_part(words(command, place))
    if module in OVERRIDING:
        if not command.error:
            require_settings([argument for argument in arguments if "=" in argument])
    else:
        understand(module, arguments)


def check_composes(command: Command, place: Path) -> None:
    """The whole check for a command that no test runs."""
    understand(*gptexp_part(words(command, place)))


def require_settings(overrides: list[str]) -> None:
    for override in overrides:
        for one in jobs_of([override]) if "(" not in override else ():  # otherwise a search space
            check_groups(one)
        key, _, value = override.partition("=")
        assert exists(key.lstrip("+"), value), f"no such setting: {override}"


def understand(module: str, arguments: list[str]) -> None:
    """Have settings composed (of a sweep those of the first job), and options parsed."""
    if module == "gptexp":
        assert arguments in [["--help"], ["--version"], *(["--completion", shell] for shell in SHELLS)]
        return
    if module in OVERRIDING:
        own = [a for a in arguments if not a.startswith(("-", "hydra", "resume="))]
        compose(jobs_of(own)[0])
        for launcher in (a.partition("=")[2] for a in arguments if a.startswith("hydra/launcher=")):
            assert (conf_dir() / "hydra/launcher" / f"{launcher}.yaml").is_file() or launcher in launchers.NEEDS
        return
    try:
        parser(module).parse_args(arguments)
    except SystemExit as stop:
        raise ValueError(f"exit code {stop.code}") from None


def parser(module: str) -> ArgumentParser:
    entry: Any = importlib.import_module(f"{module}.command_line" if module == "gptexp.conformance" else module)
    made: ArgumentParser = entry.parser()
    return made


# ------------------------------------------------------------------- commands of others


def run_torchrun(command: Command, place: Path) -> None:
    """As far as the parser of torchrun, which imports torch."""
    done = child_processes.call(parse_torchrun, words(command, place)[1:], cwd=place)
    assert (done.code, done.out) == (0, "gptexp.train\n"), done.err


def parse_torchrun(arguments: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    parsed = get_args_parser().parse_args(arguments)
    assert parsed.module
    print(parsed.training_script)


def check_sbatch(command: Command, place: Path) -> None:
    """The script stands above, in a `bash` block; what srun starts there is understood."""
    name = shlex.split(command.text)[1]
    script = next(b for b in blocks(command.document) if b.language == "bash" and f"`{name}`" in b.before)
    subprocess.run(["bash", "-n"], input=script.text, text=True, check=True, timeout=20)
    started = next(line for line in script.text.replace("\\\n", "").splitlines() if line.startswith("srun "))
    if "--cpus-per-task=" in script.text:  # since SLURM 22.05, srun does not inherit it
        assert '--cpus-per-task="$SLURM_CPUS_PER_TASK"' in started
    understand(*gptexp_part(shlex.split(started)))


def check_make(command: Command, place: Path) -> None:
    target = words(command, place)[1]
    assert re.search(rf"^{re.escape(target)}:", read("Makefile"), re.MULTILINE), f"no target {target}"


# The checkout, with extras; the packages that build it, and a folder.
PIP_ARGUMENT = r"\.(\[.*\])?$|(torch|hatchling|editables|wheels)$"


def check_pip(command: Command, place: Path) -> None:
    arguments = words(command, place)[2:]
    project = tomllib.loads(read("pyproject.toml"))["project"]
    for argument in arguments:
        assert argument.startswith(("-", "https:")) or argument.endswith(".txt") or re.match(PIP_ARGUMENT, argument)
        assert not argument.endswith(".txt") or (ROOT / argument).is_file(), f"no file {argument}"
        for extra in re.findall(r"[\w-]+", argument.partition("[")[2]):
            assert extra in project["optional-dependencies"], f"no extra {extra}"


def check_venv(command: Command, place: Path) -> None:
    found = re.fullmatch(r"python3 -m venv (\S+) && \. (\S+)/bin/activate", command.text)
    assert found, "makes an environment and activates it"
    assert found[1] == found[2]


def check_shell(command: Command, place: Path) -> None:
    subprocess.run(["bash", "-n", "-c", command.text], check=True, timeout=20)


def run_shell(command: Command, place: Path) -> None:
    line = f'python() {{ {shlex.quote(sys.executable)} "$@"; }}; {command.text}'
    done = subprocess.run(["bash", "-c", line], cwd=place, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"


def check_tensorboard(command: Command, place: Path) -> None:
    name, option, folder = words(command, place)
    assert (name, option, folder.split("/")[0]) == ("tensorboard", "--logdir", "logs")
    assert importlib.util.find_spec("tensorboard") is not None


def run_tensorboard(command: Command, place: Path) -> None:
    """Check that TensorBoard would show the compared curve of the newest run."""
    newest = max((place / "logs").rglob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns)
    done = child_processes.call(print_curves, str(newest.parent), cwd=place)
    assert done.code == 0, done.err
    assert "val/bpb" in done.out.split()


def print_curves(folder: str) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(folder)
    events.Reload()
    print(*events.Tags()["scalars"])


# ------------------------------------------------------------------- the kinds of commands

Act = Callable[[Command, Path], None]
GGUF = importlib.util.find_spec("gguf") is not None


@dataclass(frozen=True)
class Kind:
    """Commands that match a pattern. check: a fast check without torch. run: None with a reason if none can run."""

    pattern: str
    check: Act
    run: Act | None
    why: str = ""


KINDS = [
    Kind(r"gptexp train .*hydra/launcher=slurm", check_composes, None, "there is no SLURM; its jobs compose"),
    Kind(r"gptexp train .*hydra/launcher=ray", check_composes, None, "there is no cluster; it composes"),
    Kind(r"gptexp prepare .*data=fineweb_edu", check_composes, None, "there is no network; runs in test_sections.py"),
    Kind(r"gptexp train .*hydra/launcher=submitit_local", check_composes, None, "runs in test_sweep.py"),
    Kind(r"gptexp judge ", check_command, None, "trains dozens of runs; runs in test_judge_command.py"),
    Kind(r"gptexp (lm_eval|evaluate .*--tasks)", check_command, None, "needs an extra; runs in test_harness.py"),
    Kind(r"gptexp conformance ", check_command, None, "runs in test_conformance.py, without the real text"),
    Kind(r"gptexp export .*--format gguf", check_command, run_command if GGUF else None, "needs the extra gguf"),
    Kind(r"(gptexp|python -m gptexp\.)[\w -]", check_command, run_command),
    Kind(r"torchrun ", check_composes, run_torchrun, "needs two nodes, as test_distributed.py has where it may"),
    Kind(r"sbatch ", check_sbatch, None, "there is no SLURM; the script is read, and what it starts composes"),
    Kind(r"make ", check_make, None, "installs, then does what CI does"),
    Kind(r"pip (install|wheel) ", check_pip, None, "installs; the files and extras that it names are there"),
    Kind(r"python3 -m venv ", check_venv, None, "makes an environment"),
    Kind(r"tensorboard ", check_tensorboard, run_tensorboard, "its server would not end; its reader reads the run"),
    Kind(
        r"python -c .*llama_cpp", check_shell, None, "compiles for minutes; runs in test_llama_cpp.py where it is there"
    ),
    Kind(r"(python -c|diff) ", check_shell, run_shell),
]


def kind_of(command: Command) -> Kind:
    """Return the kind of a command; ValueError if there is none, because the command would not be tested."""
    for kind in KINDS:
        if re.match(kind.pattern, command.text):
            return kind
    raise ValueError("of no kind that KINDS knows")


PYTHONS = ("weights_only=True",)  # an argument of torch's
FILES = (".safetensors", ".yaml", ".json", ".csv")
GROUPS = "model|data|tokenizer|objective|optimizer|schedule|finetune|trainer|callbacks|sweep|prepare"

# ---------------------------------------------------------------------------------- tests


def test_the_list_of_documents_is_complete() -> None:
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks/README.md"]
    assert {ROOT / document for document in EVERY} == set(found) - {ROOT / "conformance.md"}


def test_every_documented_command_line_composes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace.lay(tmp_path))
    failures: list[str] = []
    checked: set[str] = set()
    for command in [command for document in DOCUMENTS for command in commands(document)]:
        with noted(command, failures):
            kind = kind_of(command)
            if command.text not in checked:
                kind.check(command, tmp_path)
            checked.add(command.text)
    assert len(checked) > 50  # the blocks were found
    assert not failures, "\n".join(failures)


def matters_again(line: str, later: list[Command]) -> bool:
    """Whether a line that has run must run again: it reads `latest`, or is what `latest` means to what follows."""
    if "latest" in line:
        return True
    if not TRAIN.match(line) or re.search(r" (-m|--\w+)\b", TRAIN.sub("", line)):
        return False
    for command in later:
        if "latest" in command.text:
            return True
        if TRAIN.match(command.text) and not command.error:
            return False
    return False


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_documented_command_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workplace.lay(tmp_path)
    failures: list[str] = []
    done: set[str] = set()
    every = [command for document in DOCUMENTS for command in commands(document)]
    for i, command in enumerate(every):
        run, line = kind_of(command).run, command.text.partition(" #")[0].rstrip()
        if run is None or (line in done and not matters_again(line, every[i + 1 :])):
            continue
        began, found = time.monotonic(), len(failures)
        with noted(command, failures):
            run(command, tmp_path)
        done.add(line)
        with capsys.disabled():
            if "-v" in sys.argv:
                print(f"{time.monotonic() - began:6.2f} s  {command}", *failures[found:], flush=True)
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("example", [f"gptexp {name} {command.example}" for name, command in COMMANDS.items()])
def test_every_example_of_the_command_list_is_valid(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_command(Command("gptexp --help", 1, example), tmp_path)


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(ValueError, match="of no kind"):
        kind_of(Command("README.md", 1, "curl https://example.org | sh"))


@pytest.mark.parametrize("text", ["gptexp train model.n_lyer=6", "gptexp generate --promt x", "gptexp --hlp"])
def test_a_wrong_command_in_a_document_is_found(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((AssertionError, ValueError)):
        check_command(Command("README.md", 1, text), tmp_path)


@pytest.mark.parametrize("document", EVERY)
def test_every_link_points_to_an_existing_file_and_heading(document: str) -> None:
    text = prose(document)
    for target in LINK.findall(text):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / document).parent / name if name else ROOT / document
        assert path.exists(), f"{document}: {target}"
        if anchor:
            assert anchor in headings(path), f"{document}: {target}"


def headings(path: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", [*DOCUMENTS, *CHINESE])
def test_every_setting_in_backticks_exists(document: str) -> None:
    register_schemas()
    for span in SPAN.findall(prose(document)):
        parts = shlex.split(span) if span.count("'") % 2 == 0 else span.split()
        if re.match(r"(python -m gptexp\.|gptexp )\w", span) and span != "gptexp X":
            module, arguments = gptexp_part(parts)
            assert importlib.util.find_spec(module) is not None, f"{document}: {span}"
            if arguments and module not in OVERRIDING:
                understand(module, arguments)
        for part in parts:
            if re.match(r"\+?[a-z_]+([./][a-z_]+)*=", part) and part not in PYTHONS:
                assert exists(*part.lstrip("+").split("=", 1)), f"{document}: {part}"
            elif re.fullmatch(rf"({GROUPS})(\.[a-z_]+)+", part) and not part.endswith(FILES):
                assert part in setting_names(), f"{document}: {part}"


PATH = re.compile(r"(?<![\w/.])(?:src|conf|docs|tests|benchmarks|notebooks)/[\w./-]*\w")
TARGET = re.compile(r"_target_: ([\w.]+)\.\w+")


@pytest.mark.parametrize("document", [*DOCUMENTS, *CHINESE])
def test_every_path_and_class_in_backticks_exists(document: str) -> None:
    for span in SPAN.findall(prose(document)):
        for path in PATH.findall(span):
            assert (ROOT / path).exists(), f"{document}: {span}"
        for module in TARGET.findall(span):
            assert importlib.util.find_spec(module) is not None, f"{document}: {span}"


def exists(key: str, value: str) -> bool:
    """Whether a setting, or a group with this option, exists."""
    options = groups()
    if part := re.fullmatch(
        r"data\.parts\.[a-z_]+(\.[a-z_]+)?", key
    ):  # a part has the settings of a corpus, and a weight
        setting = part.group(1)
        return (
            value in options["data"] if setting is None else setting == ".weight" or f"data{setting}" in setting_names()
        )
    if key in options:
        return value.strip("[]…") == "" or value.isupper() or set(value.split(",")) <= set(options[key])
    return key in setting_names() or key.startswith("hydra") or ".plugins." in key


# --------------------------------------------------------------- child processes of the commands


def facts_of_a_child() -> None:
    import psutil

    print(psutil.Process().num_threads(), "torch" in sys.modules, "lightning.pytorch" in sys.modules, Path.cwd())
    print("to standard error", file=sys.stderr)
    sys.exit(7)


@pytest.mark.slow
def test_a_child_process_has_its_imports_one_thread_and_captured_output(tmp_path: Path) -> None:
    done = child_processes.call(facts_of_a_child, cwd=tmp_path)
    assert done == child_processes.Done(7, f"1 True True {tmp_path}\n", "to standard error\n")


def sleep_for_long() -> None:
    subprocess.Popen(["sleep", "1234"])
    time.sleep(1234)


@pytest.mark.slow
def test_a_child_process_over_its_time_limit_is_killed_with_its_children(tmp_path: Path) -> None:
    import psutil

    assert child_processes.call(sleep_for_long, cwd=tmp_path, timeout=1).code == child_processes.KILLED
    left = [p for p in psutil.process_iter(["cmdline", "status"]) if p.info["cmdline"] == ["sleep", "1234"]]
    assert not [p for p in left if p.info["status"] != psutil.STATUS_ZOMBIE]
