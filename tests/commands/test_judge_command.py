"""`gptexp judge` as a user runs it: exit codes, the output for people and for programs, and errors in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support import child_processes
from support.child_processes import Done
from support.runs import TINY, story

ROOT = Path(__file__).parents[2]
BASE = " ".join([*TINY, "model=bigram", "data.path=story.txt", "optimizer.lr=0.01", "logger.tensorboard=false"])


def judge(place: Path, *arguments: str, source: Path | None = None) -> Done:
    env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "80"}
    return child_processes.run("gptexp.commands.judge", *arguments, cwd=place, env=env, source=source, timeout=300)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("judge")
    (place / "story.txt").write_text(story(120), encoding="utf-8")
    return place


@pytest.mark.slow
def test_a_line_of_bases_from_the_command_line(place: Path) -> None:
    worse, better = "optimizer.lr=1e-5", "optimizer.lr=0.3"
    done = judge(place, "--base", BASE, "--idea", worse, "--ideas", "5", "--json")
    assert done.code == 1, done.err
    record = json.loads(done.out)
    assert (record["verdict"], record["t"], record["stored"], record["pairs"]) == ("discard", 1, False, 1)
    assert "new line" in done.err

    done = judge(place, "--base", BASE, "--idea", better)
    assert done.code == 0, done.err
    assert "\nkeep\n  val/bpb -" in done.out
    assert max(map(len, done.out.splitlines()[:-1])) <= 80
    kept = f"{BASE} {better}"
    assert f"next: gptexp judge --base '{kept}' --idea …" in done.out
    folders = {path.name for path in (place / "logs/judge").glob("*/base0,seed=*")}
    assert {f"base0,seed={seed}" for seed in (1, 2, 996, 999)} <= folders

    again = judge(place, "--base", BASE, "--idea", better)
    assert again.code == 0
    assert "nothing was run" in again.out
    assert judge(place, "--base", kept, "--idea", worse).code == 1
    log = judge(place, "--log")
    assert log.code == 0
    assert [line.split()[:2] for line in log.out.splitlines()[2:]] == [["1", "0"], ["2", "0"], ["3", "1"]]
    assert [entry["verdict"] for entry in json.loads(judge(place, "--log", "--json").out)] == [
        "discard",
        "keep",
        "discard",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: --base: is missing; "),
        (["--base", BASE], "error: --idea, --idea-rev: give one of them"),
        (["--base", BASE, "--idea", "a=1", "--idea-rev", "x"], "error: --idea, --idea-rev: give one of them"),
        (["--log", "--base", BASE], "error: --log: prints the ledger; leave out --base"),
        (["--log", "--logs", "none"], "error: none/ledger.jsonl: no idea has been judged"),
        (
            ["--base", BASE, "--idea", "trainer.max_steps=3"],
            "error: trainer.max_steps=3: an idea can't change the length",
        ),
        (["--base", BASE, "--idea", "model.n_hea=3"], "error: model.n_hea"),
        (
            ["--base", BASE, "--idea", "optimizer.lr=1", "--max-seeds", "0"],
            "error: --max-seeds: 0: must be a whole number",
        ),
        (
            ["--base", BASE, "--idea", "optimizer.lr=1", "--max-seeds", "901"],
            "error: --max-seeds=901: must be at most 900",
        ),
        (
            ["--base", BASE, "--idea", "optimizer.lr=1", "--margin", "-1"],
            "error: --margin: -1: must be a number from 0",
        ),
        (
            ["--base", BASE, "--idea", "optimizer.lr=1", "--alpha", "1"],
            "error: --alpha: 1: must be above 0 and below 0.5",
        ),
        (["--base", BASE, "--idea-rev", "--upload-pack=x"], "error: --idea-rev: expected one argument"),
        (["--base", BASE, "--idea-rev=--all"], "error: --idea-rev --all: "),
        (["--base", BASE, "--idea-rev", "no/such"], "error: --idea-rev no/such: "),
    ],
)
def test_a_wrong_use_is_one_line_and_exit_code_2(place: Path, arguments: list[str], message: str) -> None:
    done = judge(place, *arguments)
    assert done.code == 2
    assert done.err.startswith(message), done.err
    assert done.err.count("\n") == 1
    assert done.out == ""


# ---------------------------------------------------------------------------------- revisions

SLOWER = """

_lr_multiplier = lr_multiplier


def lr_multiplier(config, max_steps, step):
    return 1e-3 * _lr_multiplier(config, max_steps, step)
"""
OTHER_MODEL = """

_forward = Bigram.forward
Bigram.forward = lambda self, tokens: 2 * _forward(self, tokens)
"""


def git(repository: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(repository), *who, *arguments], check=True, capture_output=True)


def branch(repository: Path, name: str, file: str, old: str, new: str) -> None:
    """Make a branch in which a text of a file is replaced."""
    git(repository, "checkout", "-q", "-b", name, "main")
    path = repository / file
    content = path.read_text(encoding="utf-8")
    assert old in content
    path.write_text(content.replace(old, new) if old else content + new, encoding="utf-8")
    git(repository, "commit", "-q", "-am", name)
    git(repository, "checkout", "-q", "main")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with this code, whose current directory can be judged in."""
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / ".gitignore").write_text("__pycache__/\n/logs/\n/data/\n")
    (tmp_path / "story.txt").write_text(story(120), encoding="utf-8")
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "base")
    return tmp_path


@pytest.mark.slow
def test_a_revision_is_trained_by_its_own_code_and_scored_by_the_base(repository: Path) -> None:
    branch(repository, "slower", "src/gptexp/config/schedule.py", "", SLOWER)
    branch(repository, "other-model", "src/gptexp/models/bigram.py", "", OTHER_MODEL)
    branch(repository, "text", ".gitignore", "", "more/\n")
    field = '    kind: str = "bigram"\n'
    setting = f'{field}    extra: int = 3\n    """More."""\n'
    branch(repository, "setting", "src/gptexp/config/model.py", field, setting)

    def judged(revision: str) -> Done:
        base = BASE.replace("optimizer.lr=0.01", "optimizer.lr=0.3")
        return judge(repository, "--base", base, "--idea-rev", revision, "--json", source=repository / "src")

    done = judged("slower")
    assert done.code == 1, done.err
    record = json.loads(done.out)
    commit = subprocess.check_output(["git", "-C", str(repository), "rev-parse", "slower"], text=True).strip()
    assert (record["idea"], record["idea_text"], record["verdict"]) == (commit, "slower", "discard")
    assert record["effect"] > 0.1
    (provenance,) = repository.glob("logs/judge/*/idea1,seed=1/provenance.json")
    assert json.loads(provenance.read_text(encoding="utf-8"))["git"]["commit"] == commit

    for name, message in (
        ("other-model", "the revision changes how a model computes or how it is scored"),
        ("text", "has the Python code of the base"),
        ("setting", "the code of the base can't open this checkpoint"),
    ):
        done = judged(name)
        assert done.code == 2, (name, done.out, done.err)
        assert message in done.err.splitlines()[-1]
        assert "Traceback" not in done.err


@pytest.mark.slow
def test_a_revision_must_keep_the_length_of_the_base(repository: Path) -> None:
    preset = "conf/experiment/short.yaml"
    (repository / preset).write_text("# @package _global_\ntrainer:\n  max_steps: 2\n", encoding="utf-8")
    git(repository, "add", preset)
    git(repository, "commit", "-q", "-m", "preset")
    branch(repository, "longer", preset, "2", "4")
    (repository / "src/gptexp/more.py").write_text("", encoding="utf-8")  # the base's code differs
    base = BASE.replace("trainer.max_steps=2", "experiment=short")
    done = judge(repository, "--base", base, "--idea-rev", "longer", source=repository / "src")
    assert done.code == 2, done.out
    assert "trainer.max_steps: --idea-rev longer can't change the length (2 in the base, 4 in the idea)" in done.err
