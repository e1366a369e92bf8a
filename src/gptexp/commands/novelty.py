"""`gptexp novelty`: how much of what a model writes is copied from its training text."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING

from gptexp.commands.generate import require_ranges
from gptexp.compose.trust import data_text
from gptexp.config import NoveltyConfig
from gptexp.util.entry_point import program_name
from gptexp.util.errors import fail
from gptexp.util.options import OptionParser, add_corpus_options, add_device_options, command
from gptexp.util.text import install_extra, printable

if TYPE_CHECKING:
    from gptexp.data.mixture import Texts
    from gptexp.data.novelty import Novelty
    from gptexp.objectives.loading import Opened
    from gptexp.report.statistics import Interval

LISTED, EXCERPT = 5, 60  # spans below the table, and characters of each
LABELS = {"longest_span": "longest copied span, characters", "longest_span_words": "longest copied span, words"}


def parser() -> OptionParser:
    """Return the parser."""
    p = OptionParser(
        prog=program_name("gptexp.commands.novelty"),
        description="Generate texts and search for them in the training text: the longest copied spans, and the shares "
        "of new n-grams and invented words. Prompts are held-out text; what follows them there is measured as well.",
    )
    p.add_argument("run", metavar="RUN", help="a run folder, a checkpoint file, or `latest`")
    p.add_argument("--samples", type=int, default=20, help="number of texts; default: %(default)s")
    p.add_argument("--tokens", type=int, default=400, help="tokens of each text; default: %(default)s")
    p.add_argument("--temperature", type=float, default=0.8, help="0: always the likeliest token; default: %(default)s")
    p.add_argument("--top-k", type=int, default=50, help="sample from the k likeliest tokens; default: %(default)s")
    p.add_argument("--seed", type=int, default=1, help="the same seed gives the same texts; default: %(default)s")
    add_device_options(p)
    add_corpus_options(p)
    p.add_argument("--json", action="store_true", help="print one JSON object, with all texts and spans")
    return p


@command(parser)
def main(arguments: argparse.Namespace) -> None:
    """Print how new the texts are that the command line requests."""
    require_ranges(arguments)
    if find_spec("scipy") is None:
        fail(f"novelty needs scipy: {install_extra('compare')}")
    from rich.console import Console

    from gptexp.generation.continuations import compared, continued, held_out_windows
    from gptexp.objectives.loading import open_run

    run = open_run(arguments.run, arguments.logs, arguments.device, arguments.precision)
    data = _corpus(arguments, run)
    options = {name: getattr(arguments, name) for name in ("samples", "tokens", "temperature")}
    config = NoveltyConfig(top_k=arguments.top_k or None, **options)
    windows = held_out_windows(data, config, run.block_size, "--tokens")
    with Console(stderr=True).status("generating") as status:
        with run.placement.context():
            written = continued(run.model, windows, config, arguments.seed)
        status.update("searching the training text")
        found = compared(data, [*written, *(window[-config.tokens :] for window in windows)])
    texts = {"model": found[: len(written)], "held_out": found[len(written) :]}
    if arguments.json:
        facts = {**asdict(config), "seed": arguments.seed, "step": run.checkpoint.step}
        print(json.dumps({**facts, "means": _means(texts), "texts": texts}, default=asdict))
        return
    show(texts, by_character=run.tokenizer.kind in ("char", "byte"))
    if config.samples * len(windows[0]) > len(data.val):
        print("notice: the validation text is short; held-out texts overlap, so their intervals are too narrow")


def _corpus(arguments: argparse.Namespace, run: Opened) -> Texts:
    """Open the corpus of a run. ValueError: it can't be opened, or is not what the run was trained on."""
    from gptexp.evaluation.run_corpus import run_corpus

    options = {name: getattr(arguments, name) for name in ("logs", "cache", "trust_data")}
    data = run_corpus(run, **options)
    if data.fingerprint != run.checkpoint.data.get("fingerprint"):
        raise ValueError(
            f"{arguments.run}: its training text has changed since it was trained "
            f"({data_text(run.checkpoint.config['data'])}), so copies can't be found; put the same text in place"
        )
    return data


def _means(texts: dict[str, list[Novelty]]) -> dict[str, dict[str, Interval]]:
    """Return the mean of each value with its 95% interval over the texts that have it, by name and kind of text."""
    from gptexp.report.statistics import interval

    def over(some: Sequence[Novelty], name: str) -> Interval:
        return interval([value for one in some if (value := one.values[name]) is not None])

    return {name: {kind: over(some, name) for kind, some in texts.items()} for name in texts["model"][0].values}


def show(texts: dict[str, list[Novelty]], *, by_character: bool) -> None:
    """Print the table and the longest spans. by_character: with n-grams of characters."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table("", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for head in ("model", "held-out text"):
        table.add_column(head, justify="right", no_wrap=True)
    for name, means in _means(texts).items():
        if by_character or "characters" not in name:
            table.add_row(_label(name), *(_cell(one, share="span" not in name) for one in means.values()))
    console.print(table)
    for line in ["", *_spans(texts["model"])]:
        console.print(Text(line), soft_wrap=True)  # literally: a text may contain rich's markup


def _label(name: str) -> str:
    kind, _, n = name.rpartition("_")
    if not n.isdigit():
        return LABELS.get(name, name.replace("_", " "))
    return f"new {n}-grams of {'characters' if 'characters' in kind else 'words'}"


def _cell(one: Interval, *, share: bool) -> str:
    if one.mean is None:
        return "–"
    scale, half = 100 if share else 1, one.half_width
    return f"{scale * one.mean:.1f}" + ("" if half is None else f" ± {scale * half:.1f}") + "%" * share


def _spans(written: Sequence[Novelty]) -> list[str]:
    """Return lines with the longest copied spans of the model's texts and their places."""
    spans = sorted(((one.span, i) for i, one in enumerate(written, 1) if one.span), key=lambda pair: -len(pair[0].text))
    lines = ["longest spans: text, characters, offset in the training text, beginning"] if spans else []
    for span, i in spans[:LISTED]:
        excerpt = span.text[:EXCERPT] + "…" * (len(span.text) > EXCERPT)
        lines.append(f"  {i:>3}  {len(span.text):>5,}  {span.offset:>11,}  “{printable(excerpt)}”")
    return lines


if __name__ == "__main__":
    main()
