"""The corpus that a run was trained on."""

from __future__ import annotations

from pathlib import Path

from gptexp.compose.trust import require_trusted
from gptexp.config.conversion import from_plain
from gptexp.config.kinds import kinds_in
from gptexp.data.mixture import Texts, prepare_texts
from gptexp.runs.checkpoint import Checkpoint
from gptexp.tokenizers import Tokenizer


def run_corpus(
    run: str,
    path: Path,
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    *,
    logs: Path,
    cache: Path,
    trust_data: bool,
    instead: str | None = None,
) -> Texts:
    """Open the corpus that the settings of a run name. It may have changed since: compare the fingerprints.

    run: as the user named it. path: of the checkpoint. trust_data: whether any run's corpus may be read. instead: what
    the user can do without a corpus, such as "give a text with --text FILE".

    Raises:
        ValueError: it has none, it may not be read, or it is missing.
    """
    settings = checkpoint.config.get("data")
    if not settings:  # Hugging Face's format: weights without a corpus
        raise ValueError(f"{run}: has no corpus; {instead or 'give a run that gptexp has trained'}")
    checkpoint.require_installed(run, data=kinds_in(checkpoint.config).get("data"))
    if not trust_data:
        require_trusted(run, path, settings, logs, instead)
    block_size = int(checkpoint.config["model"]["block_size"])
    return prepare_texts(from_plain("data", settings), tokenizer, cache, block_size=block_size)
