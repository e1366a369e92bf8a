"""python -m gptexp: what commands there are."""

from __future__ import annotations

import sys

from gptexp import __version__
from gptexp.util.entry_point import entry_point

COMMANDS = {
    "train": "train one experiment, or with -m one for each of several values",
    "compare": "tables and plots of runs and sweeps, with intervals",
    "generate": "write on from a prompt",
    "evaluate": "score a run on a text or a task",
    "predict": "the labels of texts, by a classifier",
    "prepare": "tokenize a text beforehand",
    "export": "write a run in Hugging Face's form",
    "replay": "compute again the step that broke a run",
    "verify_resume": "kill a run, resume it, and compare it with one that was not killed",
    "conformance": "check the code against published numbers",
}


@entry_point
def main(arguments: list[str] | None = None) -> None:
    """List the commands, or say the version."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--version" in arguments:
        print(f"gptexp {__version__}")
        return
    if arguments and not {"--help", "-h"} & set(arguments):
        known = f"python -m gptexp.{arguments[0]}" if arguments[0] in COMMANDS else "python -m gptexp, which lists them"
        print(f"error: {' '.join(arguments)}: a command is a module; write {known}", file=sys.stderr)
        sys.exit(2)
    print(f"gptexp {__version__}\n")
    for command, does in COMMANDS.items():
        print(f"python -m gptexp.{command:<15}{does}")
    print("\nEach takes --help.")


if __name__ == "__main__":
    main()
