"""provenance.json: command, code, versions, machine and data of a run.

`write_provenance` is its only writer, `read_provenance` its only reader.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gptexp.config.kinds import kinds_in, packages_of
from gptexp.runs.code_hash import code_sha256
from gptexp.runs.layout import PROVENANCE
from gptexp.util.entry_point import program_words
from gptexp.util.files import read_json, write_json
from gptexp.util.git import GitState, git_state
from gptexp.util.package import PACKAGE

if TYPE_CHECKING:
    from gptexp.machine.hardware import Hardware  # imports torch

SCHEMA = 1
COMMAND = "GPTEXP_COMMAND"  # environment variable: the user's command line, for child processes
DEPENDENCIES = ("gptexp", "torch", "lightning", "hydra-core", "omegaconf", "numpy", "tiktoken", "tokenizers")

_FILE = re.compile(rf"{Path(PROVENANCE).stem}(?:-(\d+))?\.json", re.ASCII)


@dataclass(frozen=True)
class CodeVersion:
    """The code of a run: its hash, the commit of gptexp if it is a checkout, and the versions of the dependencies.

    packages: by group of settings, name and version of the installed package that its kind comes from.
    """

    code_sha256: str | None = None
    git: GitState | None = None
    versions: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Provenance(CodeVersion):
    """The origin of a run. A key that a file lacks has the default.

    directory: None if it was deleted before the run started. data: fingerprint of the data, hash of the scored text.
    computed_by: the job of the sweep whose process this was, if this run continues another job's first steps.
    """

    command: str = ""
    directory: str | None = None
    hardware: Hardware = field(default_factory=lambda: cast("Hardware", {}))
    data: dict[str, str] = field(default_factory=dict)
    computed_by: str | None = None


def write_provenance(
    folder: Path, first_step: int, data: dict[str, str], hardware: Hardware, settings: object = None
) -> None:
    """Write the provenance of this process; a process that resumes the run gets a second file.

    first_step: the step at which this process starts. settings: the experiment.
    """
    path = folder / PROVENANCE
    if path.exists():
        path = path.with_stem(f"{path.stem}-{first_step}")
    try:
        directory = str(Path.cwd())
    except OSError:  # it was deleted
        directory = None
    found = Provenance(
        command=os.environ.get(COMMAND) or command_line(),
        directory=directory,
        **vars(code_version(settings)),
        hardware={"machine": platform.machine(), "system": platform.platform(), **hardware},
        data=data,
    )
    save_provenance(path, found)


def save_provenance(path: Path, found: Provenance) -> None:
    """Write a provenance file."""
    plain = {"schema": SCHEMA, "command": found.command, "directory": found.directory, **asdict(found)}
    write_json(path, {key: value for key, value in plain.items() if (key, value) != ("computed_by", None)})


def provenance_files(folder: Path) -> list[Path]:
    """Return the provenance files of a run, in the order of the steps at which they start."""
    found = {path: match for path in folder.glob("*.json") if (match := _FILE.fullmatch(path.name))}
    return sorted(found, key=lambda path: int(found[path][1] or -1))


def read_provenance(path: Path) -> Provenance:
    """Return the content of a provenance file.

    Raises:
        OSError: the file is missing or unreadable.
        ValueError: the file is damaged or has a later schema.
    """
    try:
        return from_plain(read_json(path))
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None


def from_plain(stored: dict[str, Any]) -> Provenance:
    """Return the content of a provenance file, which may be untrusted. ValueError: it is damaged."""
    schema = stored.get("schema", SCHEMA)
    if schema != SCHEMA:
        raise ValueError(f"schema={schema!r}: this version of gptexp reads schema {SCHEMA}")
    hardware, commit = stored.get("hardware") or {}, stored.get("git")
    texts = [stored.get("command") or "", stored.get("directory") or "", stored.get("code_sha256") or ""]
    if not all(isinstance(text, str) for text in texts) or not _is_hardware(hardware):
        raise ValueError("damaged")
    return Provenance(
        command=texts[0],
        directory=stored.get("directory"),
        code_sha256=stored.get("code_sha256"),
        git=None if commit is None else _git(commit),
        versions=_texts(stored.get("versions")),
        packages=_texts(stored.get("packages")),
        hardware=cast("Hardware", hardware),
        data=_texts(stored.get("data")),
        computed_by=computed_by if isinstance(computed_by := stored.get("computed_by"), str) else None,
    )


def _is_hardware(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    gpus = value.get("gpus", [])
    return isinstance(gpus, list) and all(isinstance(name, str) for name in [*gpus, value.get("cpu", "")])


def _git(stored: object) -> GitState:
    if not isinstance(stored, dict) or not isinstance(stored.get("commit"), str):
        raise ValueError("damaged")
    diff = stored.get("diff")
    return GitState(stored["commit"], diff if isinstance(diff, str) else None)


def _texts(stored: Any) -> dict[str, str]:
    values = stored.items() if isinstance(stored, dict) else ()
    return {name: value for name, value in values if isinstance(value, str)}


def last_code(folder: Path) -> str | None:
    """Return the hash of the code that last trained a run; None if its provenance files don't give it."""
    files = provenance_files(folder)
    try:
        return read_provenance(files[-1]).code_sha256 if files else None
    except (OSError, ValueError):
        return None


def recorded_packages(folder: Path) -> dict[str, str]:
    """Return, by group of settings, the packages that a run's kinds come from; {} if no provenance file is readable."""
    files = provenance_files(folder)
    try:
        return read_provenance(files[-1]).packages if files else {}
    except (OSError, ValueError):
        return {}


def code_version(settings: object = None) -> CodeVersion:
    """Return the code that runs; settings: the experiment, whose kinds may come from installed packages."""
    packages = names_of_packages(settings)
    return CodeVersion(code_sha256(settings), git_state(PACKAGE), versions(packages.values()), packages)


def names_of_packages(settings: object) -> dict[str, str]:
    """Return name and version of the installed package that the kind of each group comes from."""
    used = packages_of(kinds_in(settings)) if settings is not None else {}
    return {group: offer.package for group, offer in used.items()}


def command_line() -> str:
    """Return the command line as typed: `python -m gptexp.train …` or `gptexp train …`."""
    line = shlex.join([*program_words(), *sys.argv[1:]])
    return line.encode(errors="backslashreplace").decode()  # file names that are not UTF-8


def versions(packages: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on, with further names and versions."""
    found = {"python": platform.python_version(), **dict(package.split(" ", 1) for package in packages)}
    return found | {package: _installed(package) for package in DEPENDENCIES}


@cache  # a process runs the versions that it has imported
def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"
