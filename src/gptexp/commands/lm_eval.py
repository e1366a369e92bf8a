"""`gptexp lm-eval`: the command of lm-evaluation-harness, which then knows the model gptexp.

The harness finds models in its own registry only; it has no plug-ins. A model of another package is registered, and
then the harness's entry point is called.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec

from gptexp.util.entry_point import program_name
from gptexp.util.options import OptionParser, command
from gptexp.util.text import install_extra


def parser() -> OptionParser:
    """Return a parser that leaves all words to the harness, `--help` too."""
    p = OptionParser(prog=program_name("gptexp.commands.lm_eval"), prefix_chars="\0", add_help=False)
    p.add_argument("words", nargs="*")
    return p


@command(parser)
def main(arguments: argparse.Namespace) -> None:
    """Entry point of `gptexp lm-eval`."""
    if find_spec("lm_eval") is None:
        raise ValueError(f"lm-eval: lm-evaluation-harness is not installed: {install_extra('lm-eval')}")
    from lm_eval.__main__ import cli_evaluate

    import gptexp.evaluation.harness  # noqa: F401 (registers the model)

    sys.argv = ["lm_eval", *arguments.words]
    cli_evaluate()


if __name__ == "__main__":
    main()
