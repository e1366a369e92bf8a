"""Run the commands of the documents at a small scale."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from gptexp.commands.listing import find
from support import child_processes, shrink
from support.child_processes import Done
from support.documents import Command

EXPECTED_ERROR = 2


MORE = "trainer.max_steps"  # without it, `resume=latest` needs a run that was stopped


def words(command: Command, place: Path) -> list[str]:
    """The words that a shell makes of a command line: without comments, with quotes and globs resolved."""
    line = f"printf '%s\\0' {command.text}"
    done = subprocess.run(["bash", "-c", line], cwd=place, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.split("\0")[:-1]


def gptexp_part(line: list[str]) -> tuple[str, list[str]]:
    """Module and arguments of `gptexp COMMAND …`, or of `… -m gptexp.MODULE …`, whoever starts it."""
    if line[0] != "gptexp":
        at = next(i for i, word in enumerate(line) if word.startswith("gptexp."))
        return line[at], line[at + 1 :]
    if line[1].startswith("-"):
        return "gptexp", line[1:]
    command = find(line[1])
    assert command is not None, f"no such command: {line[1]}"
    return command.module.removesuffix(".command_line"), line[2:]


def run_command(command: Command, place: Path) -> None:
    """Run a gptexp command at a small scale, or unchanged if it shows an error."""
    module, arguments = gptexp_part(words(command, place))
    if module == "gptexp.train" and "resume=latest" in arguments and not (command.error or MORE in command.text):
        killed = run_small("gptexp.train", *shrink.KILLED, cwd=place)
        assert killed.code == child_processes.KILLED, killed.err
    run = child_processes.run_quick if command.error else run_small
    done = run(module, *arguments, cwd=place)
    if command.error:
        assert done.code == EXPECTED_ERROR, f"exit code {done.code}, but an error is shown\n{done.err}"
        assert any(like(command.error).fullmatch(line) for line in done.err.splitlines()), done.err
        return
    assert done.code == 0, f"exit code {done.code}\n{done.err[-3000:]}"
    written = {masked(line) for line in done.out.splitlines()}
    for line in command.shown:
        if " · " in line and not line.startswith("│"):
            assert any(like(masked(line)).fullmatch(other) for other in written), f"no such line: {line}\n{done.out}"


def run_small(module: str, *arguments: str, cwd: Path) -> Done:
    """Run it with the overrides of shrink.py."""
    with chdir(cwd):  # they depend on the runs there
        changed = shrink.of(module, list(arguments))
    return child_processes.run_quick(module, *changed, cwd=cwd)


def masked(line: str) -> str:
    """A line of output without its numbers, which depend on the scale, and without the time and id of a run."""
    line = re.sub(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\w{3}", "#", line)
    return re.sub(r"\d+(?:[.,:]\d+)*(?:e[+-]?\d+)?[kMG]?\b", "#", line)


def like(line: str) -> re.Pattern[str]:
    """The pattern of a documented output line, in which `…` matches anything."""
    return re.compile(".*".join(map(re.escape, line.split("…"))))


@contextmanager
def noted(command: Command, failures: list[str]) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit, subprocess.SubprocessError) as error:
        failures.append(f"{command}\n    {type(error).__name__}: {error}")
