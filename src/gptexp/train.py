"""python -m gptexp.train [group=option] [key=value] …: train one GPT experiment, or run a sweep with -m."""

from __future__ import annotations

from gptexp.commands.train import run
from gptexp.util.entry_point import entry_point


@entry_point
def main() -> None:
    """Entry point of `gptexp train`."""
    run()


if __name__ == "__main__":
    main()
