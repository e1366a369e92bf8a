"""python -m gptexp.prepare [data=…] [tokenizer=…]: tokenize a corpus into the cache, without training."""

from __future__ import annotations

import sys
from pathlib import Path

from gptexp.compose import commandline
from gptexp.compose.composition import compose
from gptexp.compose.registry import register_schemas
from gptexp.util.entry_point import entry_point
from gptexp.util.errors import ConfigError, one_line_errors


@entry_point
def main() -> None:
    """Entry point of `gptexp prepare`: settings as for training; those of data, tokenizer and objective matter."""
    with one_line_errors():
        register_schemas()
    arguments = commandline.checked_arguments(sys.argv[1:])
    with one_line_errors():
        flags = [argument for argument in arguments if argument.startswith("-")]
        if flags:
            raise ConfigError(f"{flags[0]}: gptexp.prepare takes group=option and key=value only")
        config = compose(arguments)

        from gptexp.objectives import implementation

        data = implementation(config.objective.kind).prepare(config, config.tokenizer, Path(config.paths.cache))
        unit = f"{config.objective.unit}s"
        print(
            f"{config.data.kind} · {data.tokenizer.kind}, {data.tokenizer.vocab_size:,} tokens · "
            f"{len(data.train):,} training {unit} · {len(data.val):,} validation {unit} "
            f"({data.val_text_bytes:,} bytes) · {data.folder}"
        )


if __name__ == "__main__":
    main()
