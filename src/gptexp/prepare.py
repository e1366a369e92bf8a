"""python -m gptexp.prepare [data=…] [tokenizer=…]: tokenize a corpus into the cache, without training."""

from __future__ import annotations

from gptexp.commands.prepare import run
from gptexp.util.entry_point import entry_point


@entry_point
def main() -> None:
    """Entry point of `gptexp prepare`: settings as for training; those of data, tokenizer and objective matter."""
    run()


if __name__ == "__main__":
    main()
