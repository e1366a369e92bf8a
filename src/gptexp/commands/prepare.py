"""`gptexp prepare`: tokenize a corpus into the cache, in this process or in parts by jobs of Hydra's launchers."""

from __future__ import annotations

import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gptexp.compose import commandline
from gptexp.compose.composition import check_hydra, compose
from gptexp.compose.registry import register_schemas
from gptexp.config import Config, LabelledConfig, MixtureConfig
from gptexp.data.prepared import PreparedData
from gptexp.machine import job_slots
from gptexp.util.errors import ConfigError, RunError, one_line_errors
from gptexp.util.text import first_line


def run() -> None:
    """Prepare what the command line describes, and print what there is."""
    with one_line_errors():
        register_schemas()
    hydra = [word for word in sys.argv[1:] if word.startswith(("hydra/", "hydra.", "+hydra"))]
    arguments = commandline.checked_arguments([word for word in sys.argv[1:] if word not in hydra])
    with one_line_errors():
        flags = [argument for argument in arguments if argument.startswith("-")]
        if flags:
            raise ConfigError(f"{flags[0]}: gptexp.prepare takes group=option and key=value only")
        config = compose(arguments)
        data = _prepare_in_parts(config, hydra) if config.prepare.parts > 1 else _prepare(config, hydra)
        unit = f"{config.objective.unit}s"
        print(
            f"{config.data.kind} · {data.tokenizer.kind}, {data.tokenizer.vocab_size:,} tokens · "
            f"{len(data.train):,} training {unit} · {len(data.val):,} validation {unit} "
            f"({data.val_text_bytes:,} bytes) · {data.folder}"
        )


def _prepare(config: Config, hydra: list[str]) -> PreparedData:
    if hydra:
        raise ConfigError(f"{hydra[0]}: gptexp prepare uses it to run parts; add prepare.parts=N, or leave it out")
    from gptexp.objectives import implementation

    return implementation(config.objective.kind).prepare(config, config.tokenizer, Path(config.paths.cache))


def _prepare_in_parts(config: Config, hydra: list[str]) -> PreparedData:
    from gptexp.data.prepare import prepare
    from gptexp.data.sections import missing_sections, shard_in_sections
    from gptexp.sweep.launchers import hand_out, launcher_of, require_scheduler

    parts = config.prepare.parts
    if isinstance(config.data, (MixtureConfig, LabelledConfig)):
        raise ConfigError(f"prepare.parts={parts}: only a single text can be prepared in parts; leave it out")
    launcher = launcher_of(hydra)
    check_hydra(hydra)
    require_scheduler(launcher)

    def run_jobs(place: Path, numbers: list[int]) -> None:
        print(f"{len(numbers)} of {parts} parts are tokenized by hydra/launcher={launcher}", file=sys.stderr)
        try:
            hand_out(task, place.resolve(), numbers, hydra, slots=job_slots.cores())
        except Exception as error:  # of a job, in the form that its launcher gives it, or of a lost job
            left = len(missing_sections(place))
            state = f"prepare.parts={parts}: {left} parts are left; repeat the command to continue"
            raise RunError(f"{state} ({type(error).__name__}: {first_line(error)})") from error

    return prepare(
        config.data,
        config.tokenizer,
        Path(config.paths.cache),
        block_size=config.model.block_size,
        make=lambda folder, request: shard_in_sections(folder, request, parts, run_jobs),
    )


def task(composed: DictConfig) -> None:
    """Tokenize one part, in any process on any machine that sees the cache and the text."""
    from gptexp.data.sections import tokenize_section
    from gptexp.sweep.ending import busy, end_with_sweep

    end_with_sweep()
    with busy(), one_line_errors(signals_only=True):
        tokenize_section(Path(HydraConfig.get().sweep.dir), composed.sweep.job)
