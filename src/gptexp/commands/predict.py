"""`gptexp predict`: labels of texts, predicted by a trained classifier."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptexp.config.rules import require_encoding
from gptexp.data.corpora.labelled import require_files
from gptexp.runs.finding import find_checkpoint

BATCH = 32  # texts per forward pass
LISTED = 3  # labels of a text in the table; --json has all


def run(arguments: argparse.Namespace) -> None:
    """Print the labels of the texts."""
    _check(arguments)
    path = find_checkpoint(arguments.run, arguments.logs)
    show = _show_json if arguments.json else _show_table
    show(predictions(path, arguments))


def _check(arguments: argparse.Namespace) -> None:
    """Check the options before the model is loaded.

    Raises:
        ValueError: the option and the remedy.
    """
    if not arguments.text and not arguments.file:
        raise ValueError("--text: give a text to label, or --file with many")
    for flag, given in {"text-column": arguments.text_column, "encoding": arguments.encoding}.items():
        if given and not arguments.file:
            raise ValueError(f"--{flag}={given}: requires --file")
    require_encoding("--encoding", arguments.encoding or "utf-8")
    if not all(text.strip() for text in arguments.text):
        raise ValueError("--text: is empty, so no label can be predicted")
    if arguments.file:
        require_files("--file", arguments.file)


def predictions(path: Path, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield {"text", "label", "probabilities": {label: …}} for each text, in order.

    Raises:
        ValueError: the run is not a classifier, or a text can't be read.
    """
    from gptexp.machine import hardware
    from gptexp.models.placement import place
    from gptexp.objectives.classification import Classification
    from gptexp.objectives.loading import load_trained
    from gptexp.runs.opening import open_checkpoint

    device, checkpoint = hardware.find_device(arguments.device), open_checkpoint(path)
    objective, model = load_trained(checkpoint, path)
    if not isinstance(objective, Classification):
        kind = objective.config.kind
        raise ValueError(f"{path}: was trained with objective={kind}, which has no labels; train a classifier from it: "
                         f"init_from={path} objective=classification data=labelled data.path=FILE.csv")  # fmt: skip
    placement = place(model, device, arguments.precision)
    for batch in _batches(_texts(arguments, checkpoint.config)):
        with placement.context():
            rows = objective.probabilities(model, batch).tolist()
        for text, row in zip(batch, rows, strict=True):
            found = dict(zip(objective.labels, row, strict=True))
            yield {"text": text, "label": max(found, key=found.__getitem__), "probabilities": found}


def _texts(arguments: argparse.Namespace, config: dict[str, Any]) -> Iterator[str]:
    from gptexp.data.corpora._reading import clean

    yield from map(clean, arguments.text)  # as the training texts
    if arguments.file:
        from gptexp.data.corpora.labelled import texts_of

        column = arguments.text_column or config.get("data", {}).get("text_column", "text")
        yield from texts_of(arguments.file, str(column), arguments.encoding or "utf-8")


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _show_json(found: Iterator[dict[str, Any]]) -> None:
    for prediction in found:
        named = {str(label): value for label, value in prediction["probabilities"].items()}
        print(json.dumps({**prediction, "probabilities": named}, ensure_ascii=False))


def _show_table(found: Iterator[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from gptexp.util.text import printable

    table = Table("text", "label", "probabilities")
    for prediction in found:
        likely = sorted(prediction["probabilities"].items(), key=lambda pair: -pair[1])
        listed = " · ".join(f"{label} {value:.1%}" for label, value in likely[:LISTED])
        listed += " · …" if len(likely) > LISTED else ""
        text = " ".join(prediction["text"].split())
        cells = (text[:60] + "…" if len(text) > 60 else text, str(prediction["label"]), listed)
        table.add_row(*(Text(printable(cell)) for cell in cells))  # a text may contain rich's markup
    Console(highlight=False).print(table)
