"""`gptexp new`: write a package of the user's own that extends gptexp."""

from __future__ import annotations

import argparse
import keyword
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from gptexp.util.entry_point import program_name
from gptexp.util.errors import ConfigError
from gptexp.util.files import atomic_folder, display_path
from gptexp.util.options import OptionParser, command

TEMPLATES = Path(__file__).with_name("new_project")
NAME, SUFFIX = "mylab", ".template"  # the templates are the package of this name
NEXT = """\
{folder}: a package with a model, a corpus, an experiment, a sweep and a test; README.md explains its files
next: cd {folder} && make test · gptexp train experiment={name}"""


def parser() -> OptionParser:
    options = OptionParser(
        prog=program_name("gptexp.commands.new"),
        description="Write a Python package that extends gptexp with a model, a corpus, an experiment and a sweep. "
        "Its `make test` installs it into the active environment and trains the model.",
    )
    options.add_argument("name", metavar="NAME", help="name of the package, such as mylab: lower-case letters, 0-9, _")
    options.add_argument("--folder", metavar="DIR", type=Path, help="a new folder, or an empty one; default: NAME")
    return options


@command(parser)
def main(arguments: argparse.Namespace) -> None:
    """Entry point of `gptexp new`."""
    folder = write(arguments.name, arguments.folder or Path(arguments.name))
    print(NEXT.format(folder=display_path(folder), name=arguments.name))


def write(name: str, folder: Path) -> Path:
    """Write the package, completely or not at all, and return its folder.

    Raises:
        ValueError: the name can't be that of a package, or is taken.
        OSError: the folder exists and is not empty, or can't be written.
    """
    _require_free_name(name)
    with atomic_folder(folder) as place:
        for path, text in files(name):
            target = place / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="\n")
    return folder


def files(name: str) -> Iterator[tuple[str, str]]:
    """Yield path and content of each file of a new package."""
    for template in sorted(TEMPLATES.rglob(f"*{SUFFIX}")):
        path = template.relative_to(TEMPLATES).as_posix().removesuffix(SUFFIX).replace(NAME, name)
        text = template.read_text(encoding="utf-8").replace(NAME, name)
        yield path.replace("gitignore", ".gitignore"), text


def _require_free_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,49}", name) or keyword.iskeyword(name):
        remedy = "must be a name for import: a lower-case letter, then letters, digits or _, such as mylab"
        raise ConfigError(f"NAME={name}: {remedy}")
    if name in sys.stdlib_module_names or find_spec(name) is not None:
        raise ConfigError(f"NAME={name}: a module of this name is installed; choose another name")


if __name__ == "__main__":
    main()
