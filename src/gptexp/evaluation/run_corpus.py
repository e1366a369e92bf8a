"""The corpus that a run was trained on."""

from __future__ import annotations

from pathlib import Path

from gptexp.compose.trust import require_trusted
from gptexp.config.conversion import from_plain
from gptexp.config.kinds import kinds_in
from gptexp.data.mixture import Texts, prepare_texts
from gptexp.objectives.loading import Opened


def run_corpus(run: Opened, *, logs: Path, cache: Path, trust_data: bool, instead: str | None = None) -> Texts:
    """Open the corpus that the settings of a run name. It may have changed since: compare the fingerprints.

    trust_data: whether any run's corpus may be read. instead: what the user can do without a corpus, such as "give a
    text with --text FILE".

    Raises:
        ValueError: it has none, it may not be read, or it is missing.
    """
    settings = run.checkpoint.config.get("data")
    if not settings:  # Hugging Face's format: weights without a corpus
        raise ValueError(f"{run.name}: has no corpus; {instead or 'give a run that gptexp has trained'}")
    run.checkpoint.require_installed(run.name, data=kinds_in(run.checkpoint.config).get("data"))
    if not trust_data:
        require_trusted(run.name, run.path, settings, logs, instead)
    return prepare_texts(from_plain("data", settings), run.tokenizer, cache, block_size=run.block_size)
