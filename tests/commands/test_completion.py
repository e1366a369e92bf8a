"""Completion of `gptexp` in bash, zsh and fish, and what it offers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gptexp import __main__ as gptexp
from gptexp.commands.completion import SCRIPTS

OFFERED = [
    (["gen"], ["generate"]),
    (["--v"], ["--version"]),
    (["--completion", ""], ["bash", "fish", "zsh"]),
    (["generate", "--temp"], ["--temperature"]),
    (["generate", "latest", "--backend", ""], ["numpy", "torch"]),
    (["generate", "la"], []),
    (["verify-resume", "--st"], ["--steps"]),
    (["train", "model=mini_g"], ["model=mini_gpt"]),
    (["train", "trainer.max_s"], ["trainer.max_steps="]),
    (["train", "model=mlp", "model.n_h"], ["model.n_hidden="]),
    (["train", "-m", "seed=1,2", "model=bi"], ["model=bigram"]),
    (["train", "model.norm=r"], ["model.norm=rmsnorm"]),
    (["train", "model.bias="], ["model.bias=false", "model.bias=true"]),
    (["train", "--multi"], ["--multirun"]),
    (["train", "--help", "optimizer.mu"], ["optimizer.muon_lr"]),
    (["prepare", "tokenizer=by"], ["tokenizer=byte"]),
    (["train", "data.path=./st"], ["data.path=./story.txt"]),
    (["nothing", "x"], []),
]


@pytest.mark.parametrize(("words", "offered"), OFFERED, ids=[" ".join(words) for words, _ in OFFERED])
def test_the_last_word_is_completed(words: list[str], offered: list[str], tmp_path: Path) -> None:
    (tmp_path / "story.txt").touch()
    command = [sys.executable, "-m", "gptexp", "--complete", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, timeout=60)
    assert done.stdout.split() == offered


@pytest.mark.parametrize("arguments", [[], ["tcsh"], ["bash", "zsh"]])
def test_a_shell_without_a_script_is_refused_in_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        gptexp.main(["--completion", *arguments])
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith("; choose one of bash, zsh, fish\n")


# What each shell inserts for the last word; bash replaces only what follows the last `=`.
ASK = {
    "bash": 'COMP_LINE="$1"; COMP_POINT=${#1}; _gptexp; printf "%s\\n" "${COMPREPLY[@]}"',
    "fish": "complete -C $argv[1]",
    "zsh": (
        "compadd() { shift $argv[(i)--]; print -rl -- $argv }; _files() { print -rl -- files }\n"
        'words=(${(s: :)1}); [[ $1 == *" " ]] && words+=(""); CURRENT=$#words; PREFIX=$words[-1]; _gptexp'
    ),
}
LINES = [
    ("gptexp gen", {"bash": ["generate "]}, ["generate"]),
    ("gptexp train model=mini_g", {"bash": ["mini_gpt "]}, ["model=mini_gpt"]),
    ("gptexp train trainer.max_s", {}, ["trainer.max_steps="]),
    ("gptexp generate --temp", {"bash": ["--temperature "]}, ["--temperature"]),
]


@pytest.mark.parametrize("shell", SCRIPTS)
def test_shells_complete_with_the_script(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    program = tmp_path / "bin/gptexp"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gptexp "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    load = "gptexp --completion fish | source" if shell == "fish" else f'eval "$(gptexp --completion {shell})"'
    for line, special, usual in LINES:
        flags = ["-f"] if shell == "zsh" else []
        ask = [shell, *flags, "-c", f"{load}\n{ASK[shell]}", *(["-"] if shell != "fish" else []), line]
        done = subprocess.run(
            ask, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment, timeout=100
        )
        assert [word for word in done.stdout.split("\n") if word] == special.get(shell, usual), done.stderr
