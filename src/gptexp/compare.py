"""Entry point of `gptexp compare`."""

from __future__ import annotations

import argparse
from pathlib import Path

from gptexp.util.entry_point import program_name
from gptexp.util.options import OptionParser, command, positive_number


def parser() -> OptionParser:
    p = OptionParser(
        prog=program_name("gptexp.compare"),
        description="Compare finished runs: configurations with intervals over seeds, differences to a baseline with "
        "corrected p-values, plots, and a page. Runs that cannot be compared are left out, with the reason.",
    )
    p.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="run folders, or folders that contain some")
    p.add_argument("--metric", default="val/bpb", help="of the last step; default: %(default)s")
    p.add_argument("--by", metavar="KEY", action="append", default=[], help="setting to put first; may be repeated")
    baseline = (
        "configuration to compare with; several settings are separated by commas or given by repeating the option; "
        "default: the first configuration, or the one from which each other configuration changes one setting"
    )
    p.add_argument("--baseline", metavar="KEY=VALUE", action="append", help=baseline)
    budgets = ["tokens", "bytes", "flops", "seconds"]
    at = "compare at an equal budget, the largest that all runs reached; default: each run's end"
    p.add_argument("--at", choices=budgets, help=at)
    interval = "interval of the mean over seeds; default: %(default)s"
    p.add_argument("--interval", choices=["t", "bootstrap"], default="t", help=interval)
    formats = "form of the printed table; latex and markdown are also written to a file; default: %(default)s"
    p.add_argument("--format", choices=["text", "latex", "markdown"], default="text", help=formats)
    out = "folder for table, plots and page; default: DIR/report, and a folder in it for another metric or --at"
    p.add_argument("--out", metavar="FOLDER", type=Path, help=out)
    where = "show in which validation tokens the differences lie: by place in the window, frequency and repetition"
    p.add_argument("--where", action="store_true", help=where)
    p.add_argument("--cache", type=Path, help="with --where: folder of token shards; default: data/cache")
    trust = "with --where: read the corpus that the settings of the runs name, even if it is elsewhere or downloaded"
    p.add_argument("--trust-data", action="store_true", help=trust)
    p.add_argument("--scaling", action="store_true", help="fit L(N, D) = E + A/N^alpha + B/D^beta instead")
    activations = "show instead how the size of activations depends on n_embd (callbacks.activations=true)"
    p.add_argument("--activations", action="store_true", help=activations)
    p.add_argument(
        "--budget", metavar="FLOPS", type=positive_number, help="with --scaling: optimize the size for this compute"
    )
    return p


@command(parser)
def main(arguments: argparse.Namespace) -> None:
    """Entry point of `gptexp compare`."""
    from gptexp.commands import compare

    compare.run(arguments)


if __name__ == "__main__":
    main()
