"""A corpus that is tokenized in parts, in any order and after any kill, gives the bytes of one process."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gptexp.config.data import DataConfig, HuggingFaceConfig, TextConfig
from gptexp.config.tokenizer import ByteConfig, TokenizerConfig
from gptexp.data import sections, shards
from gptexp.data.corpora import CorpusBase, _reading, open_corpus
from gptexp.data.make_shards import Request
from gptexp.data.prepare import TextData, prepare
from gptexp.data.sections import missing_sections, shard_in_sections, tokenize_section
from support.prepared import TOKENIZERS
from support.runs import command, processes

ROWS = [f"Story {i}: the café number {i * 7 % 13} opens.\n" + "It rains. " * (i % 5) for i in range(90)]
ROWS[41] = "x" * 2500  # a word that tokenizers cut


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(shards, "SHARD_TOKENS", 128)
    monkeypatch.setattr(_reading.cut_pieces, "__defaults__", (60,))  # characters of a piece
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # small texts support few merges
        yield


def texts(folder: Path, **given: Any) -> TextConfig:
    """Nine files of ten rows, and an empty one."""
    folder.mkdir(exist_ok=True)
    for i in range(9):
        (folder / f"{i}.txt").write_text("".join(ROWS[10 * i : 10 * i + 10]), encoding="utf-8")
    (folder / "empty.txt").write_text("")
    return TextConfig(**{"path": str(folder), "val_bytes": None, **given})


def rows(folder: Path, **given: Any) -> HuggingFaceConfig:
    """A stream of nine files of ten documents."""
    folder.mkdir(exist_ok=True)
    for i in range(9):
        lines = [json.dumps({"text": row}) + "\n" for row in ROWS[10 * i : 10 * i + 10]]
        (folder / f"{i}.jsonl").write_text("".join(lines), encoding="utf-8")
    given = {"val_bytes": 300, **given}
    return HuggingFaceConfig(dataset="json", data_files=str(folder / "*.jsonl"), **given)


def in_sections(
    data: DataConfig,
    tokenizer: TokenizerConfig,
    cache: Path,
    count: int,
    run: Callable[[Path, list[int]], None] | None = None,
) -> TextData:
    def shuffled(place: Path, numbers: list[int]) -> None:
        for number in random.Random(count).sample(numbers, len(numbers)):
            tokenize_section(place, number)

    def make(folder: Path, request: Request) -> None:
        shard_in_sections(folder, request, count, run or shuffled)

    return prepare(data, tokenizer, cache, make=make)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def require_equal(whole: TextData, joined: TextData) -> None:
    assert joined.folder.name == whole.folder.name
    assert content(joined.folder) == content(whole.folder)
    assert joined.fingerprint == whole.fingerprint
    assert not list(joined.folder.parent.glob("*-parts-*"))


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda config: config.kind)
@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize("corpus", [texts, rows])
def test_joined_sections_have_the_bytes_of_one_process(
    corpus: Callable[..., DataConfig], count: int, tokenizer: TokenizerConfig, tmp_path: Path
) -> None:
    data = corpus(tmp_path / "corpus")
    whole = prepare(data, tokenizer, tmp_path / "whole")
    assert len(whole.train.shards) > 8
    require_equal(whole, in_sections(data, tokenizer, tmp_path / "cache", count))


@settings(
    max_examples=30,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    corpus=st.sampled_from([texts, rows]),
    count=st.integers(1, 9),
    kind=st.integers(0, len(TOKENIZERS) - 1),
    val_bytes=st.integers(2, 900),
    max_tokens=st.none() | st.integers(2, 3000),
)
def test_limits_of_tokens_and_bytes_are_met_at_the_same_place(
    tmp_path_factory: pytest.TempPathFactory,
    corpus: Callable[..., DataConfig],
    count: int,
    kind: int,
    val_bytes: int,
    max_tokens: int | None,
) -> None:
    place = tmp_path_factory.mktemp("limits")
    data = corpus(place / "corpus", val_bytes=val_bytes, max_tokens=max_tokens, val_fraction=0.3)
    with suppress(ValueError):  # too little text
        prepare(data, TOKENIZERS[kind], place / "whole")
    with suppress(ValueError):
        in_sections(data, TOKENIZERS[kind], place / "cache", count)
    (whole,), (joined,) = (list(place.glob(f"{name}/*/manifest.json")) for name in ("whole", "cache"))
    assert content(joined.parent) == content(whole.parent)


@pytest.mark.parametrize("corpus", [texts, rows])
def test_killed_sections_are_repeated_and_complete_ones_are_kept(
    corpus: Callable[..., DataConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, tokenizer, done = corpus(tmp_path / "corpus"), TOKENIZERS[2], list[int]()

    def failing(place: Path, numbers: list[int]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(sections, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                tokenize_section(place, numbers[2])
        for number in numbers[:2]:
            tokenize_section(place, number)
            done.append(number)
        (place / f".{numbers[2]:05d}.killed.tmp").mkdir()  # what SIGKILL leaves

    for expected in (4, 2):
        with pytest.raises(ValueError, match=rf"^prepare\.parts=6: {expected} parts are not complete"):
            in_sections(data, tokenizer, tmp_path / "cache", 6, failing)
    joined = in_sections(data, tokenizer, tmp_path / "cache", 6)
    assert done == [0, 1, 2, 3]
    require_equal(prepare(data, tokenizer, tmp_path / "whole"), joined)


def test_sections_beyond_the_limits_are_not_tokenized(tmp_path: Path) -> None:
    data, handled = rows(tmp_path / "corpus", max_tokens=100, val_bytes=50, val_fraction=0.5), list[int]()

    def in_order(place: Path, numbers: list[int]) -> None:
        for number in numbers:
            tokenize_section(place, number)
        handled.extend(number for number in numbers if (place / f"{number:05d}").exists())
        assert missing_sections(place) == []

    joined = in_sections(data, ByteConfig(), tmp_path / "cache", 9, in_order)
    assert handled == [0]
    require_equal(prepare(data, ByteConfig(), tmp_path / "whole"), joined)


@pytest.mark.parametrize("corpus", [texts, rows])
def test_another_text_than_the_planned_one_is_refused(corpus: Callable[..., DataConfig], tmp_path: Path) -> None:
    data = corpus(tmp_path / "corpus")

    def changing(place: Path, numbers: list[int]) -> None:
        name = sorted((tmp_path / "corpus").glob("1.*"))[0]
        name.write_text(name.read_text(encoding="utf-8").replace("Story", "Stories"), encoding="utf-8")
        for number in numbers:
            tokenize_section(place, number)

    with pytest.raises(ValueError, match=r"the text of part [01] is not that of the plan; all machines need the same"):
        in_sections(data, ByteConfig(), tmp_path / "cache", 4, changing)


def test_a_stream_is_divided_by_files_or_row_groups(tmp_path: Path) -> None:
    from datasets import Dataset, IterableDataset

    data = rows(tmp_path / "corpus")
    with pytest.raises(ValueError, match=r"prepare\.parts=10: data\.dataset=json can be divided into 9 parts at most"):
        in_sections(data, ByteConfig(), tmp_path / "cache", 10)
    path = tmp_path / "rows.parquet"
    Dataset.from_dict({"text": ROWS}).to_parquet(path, batch_size=10)
    data = HuggingFaceConfig(dataset="parquet", data_files=str(path), val_bytes=300)
    if hasattr(IterableDataset, "reshard"):
        require_equal(
            prepare(data, ByteConfig(), tmp_path / "whole"), in_sections(data, ByteConfig(), tmp_path / "cache", 9)
        )


def test_a_text_is_read_from_the_file_at_which_a_section_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = open_corpus(texts(tmp_path / "corpus"), tmp_path)
    whole = list(corpus.pieces_from([0, 0]))
    assert [piece[1:] for piece in whole] == list(corpus.pieces())
    for i in (0, 1, 17, len(whole) - 1):
        assert list(corpus.pieces_from(whole[i][0])) == whole[i:]
        plain = list(CorpusBase.pieces_from(corpus, [i, 0]))
        assert [piece[1:] for piece in plain] == [piece[1:] for piece in whole[i:]]
    read = list[Path]()

    def chunks(path: Path) -> Iterator[bytes]:
        read.append(path)
        yield path.read_bytes()

    monkeypatch.setattr(_reading, "_chunks", chunks)
    assert next(corpus.pieces_from([7, 1]))[0] == [7, 1]
    assert [path.name for path in read] == ["7.txt"]


# ----------------------------------------------------------------------------------- the command


def folder_of(cache: Path) -> Path:
    (manifest,) = cache.glob("*/manifest.json")
    return manifest.parent


PARTS = ["data=text", "data.path=texts", "tokenizer=gpt2", "data.val_bytes=9000"]


def test_the_command_prepares_in_parts_in_one_process(tmp_path: Path) -> None:
    texts(tmp_path / "texts")
    settings = [*PARTS, "tokenizer=bpe_512"]
    assert command("prepare", *settings, "paths.cache=whole", cwd=tmp_path).returncode == 0
    done = command("prepare", *settings, "paths.cache=cache", "prepare.parts=5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "5 of 5 parts are tokenized by hydra/launcher=basic" in done.stderr
    assert content(folder_of(tmp_path / "cache")) == content(folder_of(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hydra/launcher=cores"], "hydra/launcher=cores: gptexp prepare uses it to run parts; add prepare.parts=N"),
        (["prepare.parts=0"], "prepare.parts=0: must be at least 1"),
        (["data=mixture", "prepare.parts=2"], "prepare.parts=2: only a single text can be prepared in parts"),
        (["prepare.parts=2", "hydra/launcher=core"], "hydra/launcher=core: no such option; did you mean cores?"),
        (["prepare.parts=2", "hydra/launcher=slurm"], "hydra/launcher=slurm: this machine has no SLURM"),
    ],
)
def test_a_wrong_division_is_refused_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = command("prepare", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


def test_training_refuses_a_setting_of_prepare(tmp_path: Path) -> None:
    done = command("train", "prepare.parts=2", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: prepare.parts=2: is a setting of gptexp prepare")


LAUNCHERS = {
    "cores": ["hydra/launcher=cores", "hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra/launcher=submitit_local"],
    **({"ray": ["hydra/launcher=ray"]} if find_spec("hydra_plugins.hydra_ray_launcher") else {}),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_parts_of_a_launcher_killed_twice_have_the_bytes_of_one_process(tmp_path: Path, launcher: str) -> None:
    (tmp_path / "texts").mkdir()
    for i in range(8):
        (tmp_path / f"texts/{i}.txt").write_text("\n".join(ROWS) * 400, encoding="utf-8")
    settings = [*PARTS, "prepare.parts=8", *LAUNCHERS[launcher]]
    for kill in range(2):
        process = subprocess.Popen(
            [sys.executable, "-m", "gptexp.prepare", *settings, "paths.cache=cache"], cwd=tmp_path
        )
        deadline = time.monotonic() + 200
        while len(list(tmp_path.glob("cache/*-parts-8/*/section.json"))) <= 2 * kill:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if launcher != "ray":  # its workers end by themselves, later
            assert not psutil.wait_procs(below, timeout=60)[1]
        assert not list(tmp_path.glob("cache/*/manifest.json"))
    done = subprocess.run(
        [sys.executable, "-m", "gptexp.prepare", *settings, "paths.cache=cache"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    whole = command("prepare", *PARTS, "paths.cache=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert content(folder_of(tmp_path / "cache")) == content(folder_of(tmp_path / "whole"))
    assert not [p for p in processes("gptexp.prepare") if p.info["cwd"] == str(tmp_path)]
