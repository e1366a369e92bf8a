"""`gptexp inspect`: a page that opens a trained model on one text."""

from __future__ import annotations

import argparse
from pathlib import Path

from gptexp.runs.finding import find_checkpoint
from gptexp.runs.layout import run_folder
from gptexp.util.entry_point import program_name
from gptexp.util.files import atomic_write, require_no_link
from gptexp.util.options import OptionParser, add_corpus_options, add_device_options, add_encoding_option, command
from gptexp.util.text import printable

PAGE = "inspect.html"


def parser() -> OptionParser:
    """Return the parser."""
    p = OptionParser(
        prog=program_name("gptexp.commands.inspect"),
        description="Write one HTML page that shows what a run does with a text: the loss and the likeliest "
        "predictions of every token, the attention of every head and the loss without it, the logit lens, and what "
        "each layer adds to the right logit. The text is by default the beginning of the run's validation text.",
    )
    p.add_argument("run", metavar="RUN", help="a run folder, a checkpoint file, or `latest`")
    text = p.add_mutually_exclusive_group()
    text.add_argument("--text", type=Path, metavar="FILE", help="show the beginning of this text")
    text.add_argument("--prompt", metavar="TEXT", help="show this text")
    add_encoding_option(p)
    p.add_argument("--tokens", type=int, help="most tokens to show; default: 256, and at most block_size")
    p.add_argument("--against", metavar="RUN", help="show a second run on the same text, and where they differ")
    p.add_argument("--out", type=Path, metavar="FILE", help=f"the page; default: {PAGE} in the run folder")
    add_device_options(p)
    add_corpus_options(p)
    p.add_argument("--json", action="store_true", help="print the content of the page as JSON, and write no page")
    return p


@command(parser)
def main(arguments: argparse.Namespace) -> None:
    """Write the page, or print its content."""
    encoding = _check(arguments)
    folder = run_folder(find_checkpoint(arguments.run, arguments.logs)) or Path()

    from gptexp.inspection.inspect import inspect
    from gptexp.inspection.opening import Request
    from gptexp.inspection.page import render
    from gptexp.inspection.view import to_json

    names = [arguments.run, *([arguments.against] if arguments.against else [])]
    options = ("prompt", "text", "tokens", "logs", "cache", "trust_data", "device", "precision")
    page = inspect(names, Request(**{name: getattr(arguments, name) for name in options}, encoding=encoding))
    if arguments.json:
        print(to_json(page))
        return
    out = arguments.out or folder / PAGE
    require_no_link(out)
    atomic_write(out, render(page).encode())
    for view in page.runs:
        loss = "" if view.loss is None else f", {view.loss:.3f} bits per token"
        print("\n".join([f"{view.name}: {len(view.tokens)} tokens{loss}", *(f"  {note}" for note in view.notes)]))
    print(printable(str(out)))


def _check(arguments: argparse.Namespace) -> str:
    """Check the options before torch is imported; return the encoding. ValueError: the option and the remedy."""
    from gptexp.data.corpora._reading import Contents
    from gptexp.data.text_file import encoding_of, require_text

    if arguments.tokens is not None and arguments.tokens < 2:
        raise ValueError(f"--tokens={arguments.tokens}: must be at least 2, because the first is only context")
    if arguments.out is not None and arguments.out.is_dir():
        raise ValueError(f"--out={arguments.out}: is a folder; give a file such as {arguments.out / PAGE}")
    if arguments.text is None:
        if arguments.encoding is not None:
            raise ValueError(f"--encoding={arguments.encoding}: requires --text FILE")
        return "utf-8"
    require_text(arguments.text)
    return encoding_of(arguments.text, arguments.encoding, Contents())


if __name__ == "__main__":
    main()
