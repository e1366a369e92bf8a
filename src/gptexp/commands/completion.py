"""Shell completion of `gptexp`: the scripts call `gptexp --complete WORD…`, and Hydra completes overrides. No torch."""

from __future__ import annotations

import io
import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from importlib import import_module

from gptexp.commands.listing import COMMANDS, FLAGS, Command, find

HELP = ("--help", "-h")

# Bash splits words at `=`, so candidates are printed without the part before it. A complete word ends with a space.
BASH = r"""
_gptexp() {
    local line="${COMP_LINE:0:COMP_POINT}" IFS=$'\n' word
    local current="${line##* }"
    local before="${current%"${current##*=}"}"
    [[ $COMP_WORDBREAKS == *=* ]] || before=""
    IFS=' ' read -r -a words <<< "${line%"$current"}"
    COMPREPLY=()
    while read -r word; do
        [[ $word == *[=./] || -z $word ]] || word+=" "
        [[ -z $word ]] || COMPREPLY+=("${word#"$before"}")
    done < <("${words[0]}" --complete "${words[@]:1}" "$current" 2>/dev/null)
}
complete -o nospace -o default -F _gptexp gptexp
"""

ZSH = r"""
_gptexp() {
    local -a found
    found=("${(@f)$(${words[1]} --complete "${(@)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)}")
    found=("${(@)found:#}")
    if (( ! $#found )); then
        _files
        return
    fi
    compadd -S '' -- "${(@M)found:#*[=./]}"
    compadd -- "${(@)found:#*[=./]}"
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _gptexp gptexp
"""

FISH = r"""
function __gptexp
    set -l words (commandline -opc)
    set -l found ($words[1] --complete $words[2..-1] (commandline -ct) 2>/dev/null)
    if test -n "$found"
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c gptexp -f -a '(__gptexp)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
INSTALL = {
    "bash": 'add to ~/.bashrc: eval "$(gptexp --completion bash)"',
    "zsh": 'add to ~/.zshrc: eval "$(gptexp --completion zsh)"',
    "fish": "gptexp --completion fish > ~/.config/fish/completions/gptexp.fish",
}


def script(arguments: Sequence[str]) -> str:
    """Return the completion script of a shell; ends the program with one line if the shell is unknown."""
    if len(arguments) != 1 or arguments[0] not in SCRIPTS:
        given = " ".join(arguments) or "no shell"
        print(f"error: --completion: {given}; choose one of {', '.join(SCRIPTS)}", file=sys.stderr)
        sys.exit(2)
    return f"# {INSTALL[arguments[0]]}\n{SCRIPTS[arguments[0]].strip()}"


def candidates(words: Sequence[str]) -> list[str]:
    """Return the completions of the last word, given the words before it; none if the shell should offer file names."""
    *before, current = words or [""]
    return sorted({word for word in _possible(before, current) if word.startswith(current)})


def _possible(before: list[str], current: str) -> Iterable[str]:
    if not before:
        return [*COMMANDS, *FLAGS]
    if before == ["--completion"]:
        return SCRIPTS
    command = find(before[0])
    if command is None:
        return []
    return _overrides(before[1:], current) if command.hydra else _options(command, before[1:], current)


def _options(command: Command, before: list[str], current: str) -> list[str]:
    """Return the options of an argparse command, or the choices of the option before the word."""
    parser: ArgumentParser = import_module(command.module).parser()
    previous = parser._option_string_actions.get(before[-1]) if before else None
    if previous is not None and previous.choices is not None:
        return [str(choice) for choice in previous.choices]
    return list(parser._option_string_actions) if current.startswith("-") else []


def _overrides(before: list[str], current: str) -> list[str]:
    """Return Hydra's completions of settings, Hydra's flags, or the topics of --help."""
    from gptexp.compose.commandline import with_config_dir
    from gptexp.compose.help import choices, topics
    from gptexp.compose.hydra_versions import arguments_parser

    before = with_config_dir(before)
    if before and before[-1] in HELP:
        return topics()
    if current.startswith("-"):
        return [*arguments_parser()._option_string_actions, *FLAGS[:2]]
    return choices(current) or _by_hydra(before, current)


def _by_hydra(before: list[str], current: str) -> list[str]:
    """Return the completions of Hydra, which reads the typed line from the environment."""
    from gptexp.compose.hydra_versions import run_task
    from gptexp.compose.presets import conf_dir
    from gptexp.compose.registry import register_schemas

    register_schemas()
    words = [word for word in before if not word.startswith("-") and len(word.split()) == 1]
    os.environ["COMP_LINE"] = " ".join(["gptexp", *words, current])
    sys.argv = ["gptexp", "-sc", "query=bash"]
    with redirect_stdout(io.StringIO()) as printed:
        run_task(lambda _: None, str(conf_dir()), "train")
    return printed.getvalue().split()
