"""What the doors have in common: checking a command line early, help, errors in one line (no torch)."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gptexp import __version__
from gptexp.compose import compose
from gptexp.config import Config, SweepConfig
from gptexp.entry import BROKEN_PIPE, discard_output
from gptexp.explain import without_dashes
from gptexp.hydra_versions import arguments_parser
from gptexp.overrides import key_of, one_batch_setting, quoted
from gptexp.runs import Interrupted
from gptexp.schemas import ConfigError, conf_dir, groups
from gptexp.source import check_against_source, with_source
from gptexp.words import plain

USER_ERROR = 2
BY_SIGNAL = 128  # a shell's convention: 130 for SIGINT, 143 for SIGTERM


@contextmanager
def one_line_errors(*, stopping_only: bool = False) -> Iterator[None]:
    """Errors that our own code raises for the user end the program in one line; bugs keep their traceback.

    GPTEXP_TRACEBACK=1 shows the traceback of both. stopping_only: errors pass, signals end the program.
    """
    warnings.showwarning = _one_line_warning
    try:
        yield
    except BrokenPipeError:  # `… | head`: the reader has gone, which is no error
        discard_output()
        sys.exit(BROKEN_PIPE)
    except (ValueError, OSError) as error:
        if (
            stopping_only
            or os.environ.get("GPTEXP_TRACEBACK")
            or not (_is_ours(error) or isinstance(error, ConfigError))
        ):
            raise
        fail(_message(error))
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(BY_SIGNAL + stop.signum)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(BY_SIGNAL + signal.SIGINT)


def _one_line_warning(message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
    """Our own warnings as a line for the user; those of libraries are for their developers."""
    if str(Path(filename).resolve()).startswith(str(Path(__file__).resolve().parent)):
        print(f"notice: {plain(str(message))}", file=sys.stderr)


def fail(message: str) -> None:
    """End the program with one line on standard error, as plain text: names in it may be a stranger's."""
    print(f"error: {plain(message)}", file=sys.stderr)
    sys.exit(USER_ERROR)


def _message(error: Exception) -> str:
    """An OSError without its number: what failed, and on which file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _is_ours(error: BaseException) -> bool:
    """Whether the statement that raised stands in gptexp, so that the message was written for the user."""
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).resolve().parent)
    return bool(frames) and (str(Path(frames[-1].filename).resolve()).startswith(package) or isinstance(error, OSError))


def checked_arguments(arguments: list[str]) -> list[str]:
    """Check a Hydra command line, every job of a sweep included, and return it in a form that Hydra takes.

    Ends the program with one line where something is wrong, before torch is imported.
    """
    return checked_command(arguments)[0]


def checked_command(arguments: list[str]) -> tuple[list[str], Config | None]:
    """The same, with the experiment; None where the command line only asks something."""
    answer(arguments)
    config = None
    with one_line_errors():
        parsed = parsed_arguments(arguments)
        overrides = with_source(one_batch_setting([quoted(override) for override in parsed.overrides]))
        if not (parsed.info or parsed.hydra_help or parsed.shell_completion):
            config = compose(parsed.overrides)
            _require_said(config, parsed.overrides)
            check(config)
            if config.sweep != SweepConfig(dry_run=config.sweep.dry_run):
                raise ConfigError("sweep: says how several jobs are run; add -m")
    flags = [argument for argument in arguments if argument not in parsed.overrides]
    return [*flags, *overrides], None if parsed.cfg else config


def answer(arguments: list[str]) -> None:
    """What a command line only asks: help, or the version; ends the program with it."""
    if {"--help", "-h"} & set(arguments):
        print(help_text())
        sys.exit(0)
    if "--version" in arguments:
        print(f"gptexp {__version__}")
        sys.exit(0)


def parsed_arguments(arguments: list[str]) -> argparse.Namespace:
    """Hydra's flags and the overrides, in whichever order they stand.

    Raises:
        ConfigError: a flag that isn't Hydra's, with the setting that is meant.
    """
    parsed, unknown = arguments_parser().parse_known_intermixed_args(arguments)
    if unknown:
        following = arguments[arguments.index(unknown[0]) + 1 :]
        raise ConfigError(without_dashes(unknown[0], following[0] if following else None))
    return parsed


def _require_said(config: Config, overrides: list[str]) -> None:
    """A source brings model and tokenizer into the composition, which can't be done from inside of it."""
    said = {key_of(quoted(override)) for override in overrides}
    for verb in ("resume", "init_from"):
        run = getattr(config, verb)
        if run is not None and not said & {"resume", "init_from"}:
            raise ConfigError(f"{verb}={run}: comes from conf/; give it on the command line, for example {verb}=latest")


def sweep_overrides(arguments: list[str]) -> list[str] | None:
    """The overrides of a sweep's command line (-m), or None where it is for one run, or only asks something."""
    answer(arguments)
    with one_line_errors():
        parsed = parsed_arguments(arguments)
    asks = parsed.info or parsed.cfg or parsed.hydra_help or parsed.shell_completion
    return parsed.overrides if parsed.multirun and not asks else None


def check(config: Config) -> None:
    """What can be known of an experiment without torch: its source fits, its text and its vocabulary are there.

    Raises:
        ValueError: naming the setting or the file, and the remedy.
    """
    from gptexp.data.corpora import open_corpus
    from gptexp.tokenizers import check_tokenizer

    check_against_source(config)
    if config.resume is None and config.init_from is None:  # else the tokenizer comes with the source
        check_tokenizer(config.tokenizer)
    open_corpus(config.data, Path(config.paths.cache)).check()


EXAMPLES = {
    "model": "model=gpt2_small model.n_layer=6",
    "data": 'data=text data.path="books/*.txt"',
    "tokenizer": "tokenizer=bpe tokenizer.vocab_size=2000",
    "objective": "objective=classification data=labelled data.path=reviews.csv",
    "optimizer": "optimizer=muon optimizer.lr=2e-3",
    "schedule": "schedule=wsd schedule.warmup_steps=100",
    "finetune": "finetune=lora finetune.rank=4 init_from=RUN",
    "trainer": "trainer=cpu trainer.max_steps=3000",
    "callbacks": "callbacks=early_stopping callbacks.samples.tokens=200",
    "logger": "logger=csv",
    "experiment": "experiment=shakespeare_char_cpu",
    "sweep": "-m sweep=tokenizer data=harrypotter",
    "debug": "debug=smoke",
    "paths": "paths.data=/big/disk/data paths.logs=/big/disk/logs",
}

USAGE = """\
python -m gptexp.train [group=option] [key=value] …   train one experiment
python -m gptexp.train -m key=a,b,c seed=1,2,3        one for each combination
python -m gptexp.train --cfg job [group=option] …     print the settings only
python -m gptexp.train resume=RUN                     go on where a run stopped
python -m gptexp.train init_from=RUN data=…           start from its weights
"""


def help_text() -> str:
    """The groups, their options with a line each, and an example of each group."""
    lines = [USAGE]
    for group, options in groups().items():
        if group not in EXAMPLES:
            continue
        lines.append(f"{group}    e.g. {EXAMPLES[group]}")
        lines += [f"  {option:<22}{_first_comment(conf_dir() / group / f'{option}.yaml')}" for option in options]
        lines.append("")
    lines += ["A RUN is a run folder, a checkpoint file or `latest`. For weights it may also be"]
    lines += ["gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2 or Hugging Face's folder."]
    lines += ["--cfg job lists every setting; src/gptexp/config/ explains them."]
    return "\n".join(lines)


def _first_comment(path: Path) -> str:
    """The first comment of a preset says what it is; Hydra's own header may stand above it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line[1:].strip() for line in lines if line.startswith("#") and not line.startswith("# @")), "")
