"""Write docs/settings.md from the schemas: `python -m gptexp.compose.settings_page docs/settings.md`. No torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from gptexp.compose.help import EXAMPLES, comment_of, options_of_kind
from gptexp.compose.registry import groups, register_schemas
from gptexp.config import packages
from gptexp.config.descriptions import Section, Setting, sections, setting_groups, top_settings
from gptexp.config.plugins import PLUGINS

INTRODUCTION = """\
<!-- Made by `make settings` from src/gptexp/config/ and conf/. Do not edit. -->
# Settings

This page lists every setting of an experiment by group. On the command line, `model.n_layer=6` gives a setting a value,
and `model=gpt2_small` selects an option of a group, which sets several of them. `gptexp train --help model` prints the
settings of a group, `gptexp train --help model=gpt2_small` the values of an option, and `gptexp train --cfg job` the
values of an experiment.

The defaults are those of the schemas. The options listed under each group set other values.
"""


def page() -> str:
    """Return the text of docs/settings.md."""
    register_schemas()
    lines = [INTRODUCTION, "## Experiment", "", *_table(top_settings()), ""]
    for group in dict.fromkeys([*setting_groups(), *EXAMPLES]):
        lines += [f"## {group}", "", *_group(group)]
    return "\n".join(lines).rstrip() + "\n"


def _group(group: str) -> Iterator[str]:
    found = list(sections(group)) if group in setting_groups() else []
    yield from (f"Example: `gptexp {'prepare' if group == 'prepare' else 'train'} {EXAMPLES[group]}`", "")
    if options := groups().get(group):
        yield from ("| option | |", "|---|---|")
        yield from (f"| `{group}={option}` | {_cell(comment_of(group, option))} |" for option in options)
        yield ""
    for section in found:
        yield from _section(group, section)
    if group in PLUGINS:
        allowed = ", ".join(f"`{name}`" for name in sorted(PLUGINS[group]))
        yield from (f"Classes allowed in `{group}.plugins`: {allowed}.", "")


def _section(group: str, section: Section) -> Iterator[str]:
    if section.kind is not None and section.settings:
        options = ", ".join(f"`{option}`" for option in options_of_kind(group, section.kind))
        yield from (f"### {group}: kind {section.kind}", "", f"{section.about} Options: {options}.", "")
    elif section.settings and section.about:
        yield from (section.about, "")
    if section.settings:
        yield from (*_table(section.settings), "")


def _table(found: Iterable[Setting]) -> Iterator[str]:
    yield from ("| setting | type | default | meaning |", "|---|---|---|---|")
    for setting in found:
        yield f"| `{setting.name}` | {setting.type} | `{setting.default}` | {_cell(setting.sentence)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def main() -> None:
    """Write the page to the file that the command line names, without what other packages add."""
    os.environ[packages.SWITCH] = "0"
    Path(sys.argv[1]).write_text(page(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
