"""One rank of a distributed run; started by gptexp.launch, never by hand."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Train as the rank that the environment says, with the settings that the run folder holds."""
    from gptexp.cli import one_line_errors
    from gptexp.launch import stored_config
    from gptexp.training import train

    folder = Path(sys.argv[1])
    with one_line_errors():
        train(stored_config(folder), folder)


if __name__ == "__main__":
    main()
