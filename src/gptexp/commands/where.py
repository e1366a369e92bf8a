"""`gptexp compare --where`: opens the checkpoints of a comparison and scores each validation token."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from gptexp.compose.trust import data_text, from_network, is_in_logs, is_local
from gptexp.config.conversion import from_plain
from gptexp.report.comparable import PER_BYTE, NotComparable, objective_of, schema_of
from gptexp.report.comparison import Comparison, Row
from gptexp.report.reading import Run
from gptexp.report.where import ALL, BinnedLoss, Located, Losses, Where, paired
from gptexp.runs.finding import find_checkpoint
from gptexp.util.files import display_path

if TYPE_CHECKING:
    from gptexp.data.prepare import TextData
    from gptexp.evaluation.token_losses import Bins
    from gptexp.runs.checkpoint import Checkpoint
    from gptexp.tokenizers import Tokenizer

LOGS, CACHE = Path("logs"), Path("data/cache")


def with_where(c: Comparison, arguments: argparse.Namespace) -> Comparison:
    """Return the comparison with the tokens in which its differences lie.

    Raises:
        NotComparable: there is no difference to locate, or the reason why no configuration can be scored.
    """
    if PER_BYTE not in schema_of(c.runs[0]).metrics:
        raise NotComparable(f"--where: objective={objective_of(c.runs[0])} does not score the next token of a text")
    if any(run.part_texts for run in c.runs):
        raise NotComparable("--where: does not support data=mixture; compare runs of one text")
    others = [row for row in c.rows if row is not c.baseline and row.readings]
    if not others:
        raise NotComparable("--where: only one configuration; give the runs of at least two")
    windows = {id(row): max(_block_size(row), _block_size(c.baseline)) for row in others}
    scorer = Scorer(arguments.cache or CACHE, arguments.trust_data)
    baseline = scorer.losses(c.baseline, sorted(set(windows.values())))
    losses = [(row, scorer.losses(row, [windows[id(row)]])) for row in others if baseline]
    found = [_pair(row, c.baseline, scored, baseline) for row, scored in losses if scored]
    if not found:
        raise NotComparable(f"--where: {scorer.absent[0]}")
    return replace(c, where=Where(found, scorer.absent))


def _pair(row: Row, baseline: Row, losses: Losses, theirs: Losses) -> Located:
    splits = paired(losses, theirs)
    (total,) = splits.pop(ALL)
    sizes = sorted((_block_size(row), _block_size(baseline)))
    apart = max(_deviation(row, losses), _deviation(baseline, theirs))
    return Located(row.label, baseline.label, sizes[1], sizes[0], splits, total, apart)


def _deviation(row: Row, losses: Losses) -> float:
    """The largest difference between the loss of a run here and in its result.json."""
    recorded = {reading.run.seed: reading.run.metrics.get("val/loss", nan) for reading in row.readings}
    return max(abs(float(run[ALL].nats[0] / run[ALL].tokens[0]) - recorded[seed]) for seed, run in losses.items())


def _block_size(row: Row) -> int:
    size = row.settings.get("model.block_size")
    if type(size) is not int or not 0 < size < 2**31:
        raise NotComparable(f"--where: model.block_size={size}: not a number of tokens in the settings of {row.label}")
    return size


@dataclass
class Scorer:
    """Scores runs one after another. absent: what cannot be scored, with the reason. The first run sets the tokens."""

    cache: Path
    trust_data: bool
    absent: list[str] = field(default_factory=list)
    tokenizer: str = ""
    frequency: list[Bins] = field(default_factory=list)
    prepared: dict[str, TextData] = field(default_factory=dict)

    def losses(self, row: Row, windows: list[int]) -> Losses:
        """Return the loss of each run that can be scored, by seed, in bins for windows of these sizes."""
        found = {}
        with Console(stderr=True).status("") as status:
            for reading in row.readings:
                status.update(f"scoring {display_path(reading.run.folder)}")
                try:
                    found[reading.run.seed] = self._score(reading.run, windows)
                except (ValueError, OSError) as error:
                    folder, text = reading.run.folder, str(error)
                    self.absent.append(text if text.startswith(str(folder)) else f"{display_path(folder)}: {text}")
        return found

    def _score(self, run: Run, windows: list[int]) -> dict[str, BinnedLoss]:
        path = find_checkpoint(str(run.folder))

        from gptexp.evaluation.token_losses import EVERY_TOKEN, binned_losses, by_frequency, by_place, by_repetition
        from gptexp.objectives.loading import load_model
        from gptexp.runs.opening import open_checkpoint

        checkpoint = open_checkpoint(path)
        if checkpoint.step != run.steps:
            raise ValueError(f"its checkpoint is of step {checkpoint.step:,}, its result of step {run.steps:,}")
        model, tokenizer = load_model(checkpoint, path)
        self.tokenizer = self.tokenizer or tokenizer.fingerprint
        if tokenizer.fingerprint != self.tokenizer:
            raise ValueError("another tokenizer than the baseline: losses of different tokens cannot be paired")
        data = self._data(run, checkpoint, tokenizer)
        self.frequency = self.frequency or [by_frequency(data.train, tokenizer.vocab_size)]
        splits = [EVERY_TOKEN, *map(by_place, windows), *self.frequency, *map(by_repetition, windows)]
        return binned_losses(model, tokenizer, data.val, splits, block_size=checkpoint.config["model"]["block_size"])

    def _data(self, run: Run, checkpoint: Checkpoint, tokenizer: Tokenizer) -> TextData:
        """Open the corpus of a run, each corpus once. ValueError: it may not be read, or its text has changed."""
        from gptexp.data.prepare import prepare

        plain = checkpoint.config.get("data", {})
        corpus = from_plain("data", plain)
        if not self.trust_data and (from_network(plain) or not (is_local(plain) or is_in_logs(run.folder, LOGS))):
            raise ValueError(
                f"its settings name the corpus to read ({data_text(plain)}); add --trust-data to allow that"
            )
        key = str(checkpoint.data.get("fingerprint"))
        if key not in self.prepared:
            self.prepared[key] = prepare(corpus, tokenizer, self.cache)
        if self.prepared[key].text_sha256 != run.text_sha256:
            raise ValueError(f"its validation text has changed since it was trained ({data_text(plain)})")
        return self.prepared[key]
