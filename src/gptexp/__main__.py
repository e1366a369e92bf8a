"""Entry point of `gptexp` and `python -m gptexp`: starts a subcommand, or lists them."""

from __future__ import annotations

import sys
from importlib import import_module

from gptexp import __version__
from gptexp.commands.listing import find, listing, unknown
from gptexp.util.entry_point import entry_point
from gptexp.util.errors import USER_ERROR


@entry_point
def main(arguments: list[str] | None = None) -> None:
    """Start a subcommand, or print the answer to --help, --version or --completion."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("--help", "-h"):
        print(listing(__version__))
    elif name == "--version":
        print(f"gptexp {__version__}")
    elif name in ("--completion", "--complete"):  # the completion scripts call the latter
        from gptexp.commands import completion  # imports argparse, which `gptexp --help` does not need

        print(completion.script(rest) if name == "--completion" else "\n".join(completion.candidates(rest)))
    else:
        _start(name, rest)


def _start(name: str, arguments: list[str]) -> None:
    """Run the `main` of a subcommand with the command line of `python -m gptexp.NAME`."""
    command = find(name)
    if command is None:
        print(f"error: {unknown(name)}", file=sys.stderr)
        sys.exit(USER_ERROR)
    sys.argv = [f"gptexp {name.replace('_', '-')}", *arguments]
    import_module(command.module).main()


if __name__ == "__main__":
    main()
