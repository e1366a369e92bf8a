"""python -m gptexp.prepare [data=…] [tokenizer=…]: tokenize a corpus into the cache, without training."""

from __future__ import annotations

import sys
from pathlib import Path

from gptexp import cli
from gptexp.compose import compose
from gptexp.entry import entry_point
from gptexp.schemas import ConfigError, register_schemas


@entry_point
def main() -> None:
    """The door: the same command line as training's, as far as it concerns data and tokenizer."""
    register_schemas()
    arguments = cli.checked_arguments(sys.argv[1:])
    with cli.one_line_errors():
        flags = [argument for argument in arguments if argument.startswith("-")]
        if flags:
            raise ConfigError(f"{flags[0]}: gptexp.prepare takes group=option and key=value only")
        config = compose(arguments)

        from gptexp.objectives import implementation

        data = implementation(config.objective.kind).prepare(config, config.tokenizer, Path(config.paths.cache))
        unit = "texts" if "labels" in data.facts else "tokens"
        print(
            f"{config.data.kind} · {data.tokenizer.kind}, {data.tokenizer.vocab_size:,} tokens · "
            f"{len(data.train):,} training {unit} · {len(data.val):,} validation {unit} ({data.val_bytes:,} bytes) · "
            f"{data.folder}"
        )


if __name__ == "__main__":
    main()
