"""The commands as a user runs them: processes, standard output and error, exit codes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from gptexp.train import main
from support import child_processes
from support.runs import TINY, TINY_GPT, command, story

TRAIN = [*TINY, *TINY_GPT, "data.path=story.txt"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a text and one complete run, trained from the command line."""
    place = tmp_path_factory.mktemp("place")
    (place / "story.txt").write_text(story(120), encoding="utf-8")
    done = command("train", *TRAIN, "tokenizer=byte", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "val/bpb" in done.stdout
    assert "next: tensorboard --logdir logs" in done.stdout
    assert "\x1b" not in done.stdout
    return place


def test_generate_writes_only_prompt_and_text_to_standard_output(trained: Path) -> None:
    prompt = 'Harry said, "No!", [b]{x}=1,2\n'
    options = ["--prompt", prompt, "--max-new-tokens", "20", "--seed", "3"]
    done = command("generate", "latest", *options, cwd=trained)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(prompt)
    assert done.stdout.endswith("\n")
    assert len(done.stdout) > len(prompt) + 1
    assert done.stderr == ""
    assert command("generate", "latest", *options, cwd=trained).stdout == done.stdout


def test_an_allowed_special_token_starts_a_document(trained: Path) -> None:
    options = ["--max-new-tokens", "20", "--seed", "3"]
    without = command("generate", "latest", *options, cwd=trained)
    special = command("generate", "latest", "--prompt", "<|endoftext|>", "--allow-special", *options, cwd=trained)
    ordinary = command("generate", "latest", "--prompt", "<|endoftext|>", *options, cwd=trained)
    assert special.stdout == "<|endoftext|>" + without.stdout
    assert ordinary.stdout != special.stdout


def test_batched_prompts_and_samples_equal_single_ones(trained: Path) -> None:
    def written(*options: str) -> str:
        done = command("generate", "latest", "--max-new-tokens", "12", *options, cwd=trained)
        assert done.returncode == 0, done.stderr
        return done.stdout

    together = written("--prompt", "The", "--prompt", "A grey cat", "--num-samples", "2", "--seed", "5")
    alone = [written("--prompt", prompt, "--seed", seed) for prompt in ("The", "A grey cat") for seed in ("5", "6")]
    assert together == "".join(alone)


def test_a_wrong_prompt_is_refused_before_any_output(trained: Path) -> None:
    done = command("generate", "latest", "--prompt", "The", "--prompt", "half \udce5", cwd=trained)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the text holds half a character")


def test_text_ends_before_a_stop_string(trained: Path) -> None:
    options = ["generate", "latest", "--prompt", "The", "--temperature", "0", "--max-new-tokens", "30"]
    whole = command(*options, cwd=trained).stdout.rstrip("\n")
    stop = whole[10:13]
    assert command(*options, "--stop", stop, cwd=trained).stdout == whole[: whole.index(stop, 3)] + "\n"


def test_both_backends_write_the_same_greedy_text(trained: Path) -> None:
    options = ["generate", "latest", "--prompt", "The", "--temperature", "0", "--max-new-tokens", "40"]
    assert command(*options, "--backend", "numpy", cwd=trained).stdout == command(*options, cwd=trained).stdout


def test_interactive_mode_answers_each_line(trained: Path, quick_ranks: None) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gptexp.generate", "latest", "--interactive", "--max-new-tokens", "3"],
        input="The cat\nThe oven\n",
        capture_output=True,
        text=True,
        cwd=trained,
        check=True,
        timeout=100,
    )
    lines = done.stdout.replace("\r", "").split("The ")
    assert [line[:3] for line in lines[1:3]] == ["cat", "ove"]
    assert done.stderr.count("prompt> ") == 3


def test_evaluate_reproduces_the_validation_score_of_training(trained: Path) -> None:
    run = next((trained / "logs/runs").glob("*/*"))
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    done = command("evaluate", str(run), "--json", cwd=trained)
    assert done.returncode == 0, done.stderr
    score = json.loads(done.stdout)
    assert score["bpb"] == pytest.approx(result["metrics"]["val/bpb"], rel=1e-6)
    assert score["bytes"] == result["val"]["bytes"]
    assert score["text_sha256"] == result["val"]["text_sha256"]
    train = json.loads(
        command("evaluate", "latest", "--split", "train", "--max-tokens", "50", "--json", cwd=trained).stdout
    )
    assert train["tokens"] == 49


def test_prepare_tokenizes_once_and_prints_the_folder(trained: Path) -> None:
    done = command("prepare", "data=text", "data.path=story.txt", "tokenizer=byte", "data.val_bytes=600", cwd=trained)
    assert done.returncode == 0, done.stderr
    assert "text · byte, 257 tokens · " in done.stdout
    assert done.stderr == ""  # training has already created these tokens


WRONG = [
    ("train", ["data=harrypotter"], "harrypotter"),
    ("train", ["data=text", "data.path=nowhere/*.txt"], "nowhere/*.txt"),
    ("train", ["resume=nothing"], "nothing: no such run"),
    ("train", ["init_from=nothing"], "nothing: no such run"),
    ("generate", ["nothing"], "nothing: no such run"),
    ("generate", ["latest", "--temperature", "-1"], "--temperature=-1.0: must be a number from 0"),
    ("evaluate", ["empty"], "empty: no checkpoint in it"),
    ("evaluate", ["story.txt"], "story.txt: not a complete checkpoint file"),
    ("prepare", ["data=pydcos"], "data=pydcos: no such option; did you mean pydocs"),
]


@pytest.mark.parametrize(("name", "arguments", "message"), WRONG, ids=[f"{d} {' '.join(a)}" for d, a, _ in WRONG])
def test_wrong_input_gives_a_one_line_error_and_leaves_no_files(
    trained: Path, name: str, arguments: list[str], message: str
) -> None:
    (trained / "empty").mkdir(exist_ok=True)
    before = sorted(trained.rglob("*"))
    done = command(name, *arguments, cwd=trained)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert sorted(trained.rglob("*")) == before


def _train_with_little_space(arguments: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))  # writing more fails as on a full disk
    sys.argv = ["gptexp.train", *arguments]
    main()


def test_a_full_disk_gives_a_one_line_error_and_no_partial_file(trained: Path) -> None:
    settings = [*TRAIN, "model.n_embd=128", "tokenizer=byte", "hydra.run.dir=full"]
    done = child_processes.call(_train_with_little_space, settings, cwd=trained)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert "full/checkpoints/last.ckpt: " in done.err
    assert "the file needs" in done.err
    assert done.err.count("\n") == 1
    assert list((trained / "full/checkpoints").iterdir()) == []


def test_a_closed_output_pipe_is_not_an_error(trained: Path) -> None:
    shell = f"{sys.executable} -m gptexp.generate latest --prompt hello --max-new-tokens 3000 | head -c 5"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, cwd=trained, timeout=100, check=False)
    assert (done.stdout, done.stderr) == ("hello", "")


def test_a_folder_that_cannot_be_created_gives_a_one_line_error(trained: Path) -> None:
    done = command("train", *TRAIN, "paths.logs=story.txt", cwd=trained)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "story.txt" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_lists_every_option_of_every_group(trained: Path) -> None:
    done = command("train", "--help", cwd=trained)
    assert done.returncode == 0
    for word in ("gpt2_xl", "harrypotter", "bpe_4k", "muon", "wsd", "fsdp", "shakespeare_char_cpu", "resume=RUN"):
        assert word in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_cfg_job_prints_the_composition(trained: Path) -> None:
    done = command("train", "--cfg", "job", "model=bigram", "--resolve", cwd=trained)
    assert done.returncode == 0, done.stderr
    assert "kind: bigram" in done.stdout


def test_interactive_mode_accepts_windows_line_endings(monkeypatch: pytest.MonkeyPatch) -> None:
    from io import StringIO
    from types import SimpleNamespace

    from gptexp.commands.generate import converse

    prompts: list[str] = []
    monkeypatch.setattr("sys.stdin", StringIO("The cat\r\nThe oven\n\r\n"))
    asked = SimpleNamespace(seed=1, prompt=None, num_samples=1)
    converse(SimpleNamespace(arguments=asked, write=lambda texts, _: prompts.extend(texts)))  # type: ignore[arg-type]
    assert prompts == ["The cat", "The oven", "The oven"]
