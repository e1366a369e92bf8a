"""docs/add-your-own.md is correct: its files become a package as `gptexp new` writes it, and its commands run.

gptexp is installed from a wheel in an environment of its own, in a folder far from the checkout.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from gptexp.commands import new
from support import forked
from support.documented_commands import like, words
from support.documents import ADD_YOUR_OWN, ROOT, Command, blocks, commands

PATH = re.compile(r"`((?:src|presets)/[\w/]+\.(?:py|yaml)|pyproject\.toml)`")
SMALL = ["trainer.max_steps=4", "trainer.val_every_steps=2", "data.val_bytes=2048", "callbacks.samples.tokens=8"]
SMALL += ["trainer=cpu"]
OFFLINE = "PIP=--no-build-isolation --no-index"


@dataclass(frozen=True)
class Part:
    """A block of code of the page, with the path that the text names last before it."""

    path: str
    text: str


def parts() -> list[Part]:
    code = [block for block in blocks(ADD_YOUR_OWN) if block.language in ("python", "yaml", "toml")]
    return [Part(PATH.findall(block.before)[-1], block.text) for block in code]


def test_the_page_shows_the_model_and_the_corpus_that_new_writes() -> None:
    written = dict(new.files("mylab"))
    same = {part.path for part in parts() if part.text in written.get(part.path, "")}
    assert same == {
        "pyproject.toml",
        "src/mylab/config.py",
        "src/mylab/conf/model/mylab_gru.yaml",
        "src/mylab/corpora/sums.py",
        "src/mylab/models/gru.py",
    }


def test_the_page_has_an_example_of_each_entry_point() -> None:
    written = dict(new.files("mylab"))["pyproject.toml"]
    text = "\n".join([written, *(part.text for part in parts() if part.path == "pyproject.toml")])
    found = set(re.findall(r'entry-points\."(gptexp\.\w+)"', text))
    assert found == set(re.findall(r"^\| `(gptexp\.\w+)` \|", (ROOT / ADD_YOUR_OWN).read_text(encoding="utf-8"), re.M))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has gptexp from a wheel, and the other packages of this one."""
    place = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)], cwd=ROOT, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place / "venv")], check=True)
    programs = place / "venv" / ("Scripts" if os.name == "nt" else "bin")
    shared = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    packages = subprocess.run(
        [programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    Path(packages, "shared.pth").write_text("\n".join(shared), encoding="utf-8")
    wheel = next(place.glob("*.whl"))
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", str(wheel)]
    subprocess.run([programs / "python", *install], check=True)
    return programs


def variables(environment: Path) -> dict[str, str]:
    path = f"{environment}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "GPTEXP_PACKAGES": "1", "HF_HUB_OFFLINE": "1"}


def run(line: list[str], place: Path, environment: Path, *, forks: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment. forks: ask the process below for it, if it is gptexp."""
    popen: type[subprocess.Popen[str]] = subprocess.Popen
    if forks and line[0] == "gptexp":
        popen, line = forked.Popen, [sys.executable, "-m", *line]
    settings: dict[str, Any] = {"cwd": place, "env": variables(environment), "text": True}
    with popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, **settings) as process:
        out, err = process.communicate(timeout=400)
    return subprocess.CompletedProcess(line, process.returncode, out, err)


SERVER = """
import sys
sys.path.append(sys.argv[1])
from support import child_processes, forked
forked.serve(sys.argv[2], child_processes.PRELOAD, end=0)
"""


@contextmanager
def forking(environment: Path) -> Iterator[None]:
    """A process of the environment that imports gptexp and the package, and forks for `run`."""
    with TemporaryDirectory() as folder:  # the path of a socket must be short
        address = Path(folder, "socket")
        line = [str(environment / "python"), "-P", "-c", SERVER, str(ROOT / "tests"), str(address)]
        with subprocess.Popen(line, cwd=folder, env=variables(environment), stdin=subprocess.PIPE) as server:
            try:
                while not address.exists():
                    assert server.poll() is None
                    time.sleep(0.05)
                forked.use(str(address))
                yield
            finally:
                server.kill()


def small(line: list[str]) -> list[str]:
    """A command with few steps; options and settings that it gives stay."""
    if line[1] == "train" and "--help" not in line:
        given = {word.partition("=")[0] for word in line}
        return [*line, *(override for override in SMALL if override.partition("=")[0] not in given)]
    if line[1] == "verify-resume":
        return [*line, "--steps", "4", "--kill-at", "2", *SMALL[1:]]
    return [*line, "--max-new-tokens", "8"] if line[1] == "generate" else line


def check(command: Command, place: Path, environment: Path, *, forks: bool) -> str | None:
    """Run a command of the page, and return what is wrong with its result."""
    line = words(command, place)
    line = [*line, OFFLINE] if line[0] == "make" else line if command.error else small(line)
    done = run(line, place, environment, forks=forks)
    if command.error:
        shown = any(like(command.error).fullmatch(printed) for printed in done.stderr.splitlines())
        return None if done.returncode == 2 and shown else f"{command}\n{done.returncode} {done.stderr}"
    return None if done.returncode == 0 else f"{command}\n{done.stdout}\n{done.stderr}"


def write(project: Path, folder: str) -> None:
    """Add files of the page; a part of a file that exists is appended unless it is in it already."""
    for part in (part for part in parts() if part.path.startswith("presets/") == (folder == "presets")):
        path = project / part.path
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if part.text not in before:
            path.write_text(f"{before}\n{part.text}" if before else part.text, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.timeout(1800)
def test_the_package_of_new_and_the_examples_work_with_a_wheel(environment: Path, tmp_path: Path) -> None:
    place, wrong = tmp_path, list[str | None]()
    write(place, "presets")
    with ExitStack() as stack:
        for command in commands(ADD_YOUR_OWN):
            if command.text == "cd mylab":
                place = tmp_path / "mylab"
                continue
            wrong.append(check(command, place, environment, forks=place != tmp_path))
            if command.text == "make test":  # before the examples are added
                write(place, "package")
                assert run(["make", "install", OFFLINE], place, environment).returncode == 0
                stack.enter_context(forking(environment))
    assert not [text for text in wrong if text]
    imported = run(["python", "-P", "-c", "import gptexp; print(gptexp.__file__)"], place, environment).stdout
    assert Path(imported.strip()).is_relative_to(environment.parent)
    trained = sorted(place.glob("logs/sweeps/mylab/*/checkpoints/last.ckpt"))[0]
    assert run(["python", "-m", "pip", "uninstall", "-q", "-y", "mylab"], place, environment).returncode == 0
    done = run(["gptexp", "generate", str(trained), "--prompt", "1+2="], place, environment)
    message = "model.kind=mylab_gru: comes from the package mylab 0.1.0, which is not installed; install it"
    assert (done.returncode, done.stderr) == (2, f"error: {trained}: {message}\n")
