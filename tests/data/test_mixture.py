"""Windows of a mixture: shares, parts, order over processes and resumption, and the tokenizer of all parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptexp.config.data import MixtureConfig, TextConfig
from gptexp.config.tokenizer import BPEConfig, ByteConfig
from gptexp.data.batches import BatchPlan, TrainBatches
from gptexp.data.cache import TOKENIZER
from gptexp.data.mixture import MixtureData, balanced, prepare_mixture
from gptexp.data.prepare import prepare

FOX, CODE = "The quick brown fox — it jumps. ", "for i in range(9):\n    print(i)\n"


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "fox.txt").write_text(FOX * 30, encoding="utf-8")
    (tmp_path / "code.txt").write_text(CODE * 90, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mixture(tokenizer: Any = None, block_size: int = 8, weight: float = 2.5) -> MixtureData:
    code = {"kind": "text", "weight": weight, "path": "code.txt", "val_bytes": 80}
    fox = {"kind": "text", "weight": 1, "path": "fox.txt", "val_bytes": 80}
    config = MixtureConfig(parts={"fox": fox, "code": code})
    return prepare_mixture(config, tokenizer or ByteConfig(), Path("cache"), block_size=block_size)


def batches(data: MixtureData, plan: BatchPlan, first: int, last: int) -> dict[int, list[str]]:
    """The windows of each step over all ranks and micro-batches, sorted."""
    found: dict[int, list[str]] = {}
    for rank in range(plan.world_size):
        order = data.order(8, seed=3)
        items = TrainBatches(data.train, order, plan, rank=rank, first_step=first, last_step=last)
        for j in range(len(items)):
            tokens, targets = items[j]
            assert torch.equal(tokens[:, 1:], targets[:, :-1])
            found.setdefault(first + j // plan.accumulate, []).extend(str(row) for row in tokens.tolist())
    return {step: sorted(rows) for step, rows in found.items()}


def test_processes_micro_batches_and_resumption_do_not_change_the_windows(texts: Path) -> None:
    data = mixture()
    whole = batches(data, BatchPlan(12, 12, 1, 1), 0, 40)
    assert batches(data, BatchPlan(12, 2, 3, 2), 0, 40) == whole
    assert batches(data, BatchPlan(12, 1, 4, 3), 17, 40) == {step: rows for step, rows in whole.items() if step >= 17}


def test_a_part_gives_the_windows_that_it_has_alone_in_their_order(texts: Path) -> None:
    data = mixture()
    order, n_code = data.order(8, seed=3), len(data.parts["code"].train)
    starts = order.starts(0, 2000)
    assert (starts < n_code).sum() in (1428, 1429)  # 2.5 of 3.5
    for name, mine in {"code": starts[starts < n_code], "fox": starts[starts >= n_code] - n_code}.items():
        assert np.array_equal(mine, data.parts[name].order(8, seed=3).starts(0, len(mine)))
    shares = np.cumsum(starts < n_code) - np.arange(1, 2001) * 2.5 / 3.5
    assert np.abs(shares).max() < 1


def test_a_window_never_crosses_into_another_part(texts: Path) -> None:
    data = mixture()
    store, ends = data.train, len(data.parts["code"].train)
    windows = store.windows(np.array([ends - 3, ends, len(store) - 2]), 6)
    code, fox = (data.parts[name].train for name in ("code", "fox"))
    assert windows.tolist() == [
        [*code.read(ends - 3, ends), *code.read(0, 3)],
        list(fox.read(0, 6)),
        [*fox.read(len(fox) - 2, len(fox)), *fox.read(0, 4)],
    ]


def test_a_part_shares_the_cache_with_its_corpus_alone(texts: Path) -> None:
    part = mixture().parts["fox"]
    alone = TextConfig(path="fox.txt", val_bytes=80)
    assert prepare(alone, ByteConfig(), Path("cache")).folder == part.folder


@pytest.mark.filterwarnings("ignore:tokenizer.vocab_size")
def test_one_tokenizer_is_trained_on_all_parts_whatever_their_weights(texts: Path) -> None:
    first = mixture(tokenizer=BPEConfig(vocab_size=300))
    made = list(Path("cache").glob(f"mixture-*/{TOKENIZER}"))
    second = mixture(weight=1, tokenizer=BPEConfig(vocab_size=300))
    assert len(made) == len(list(Path("cache").glob(f"mixture-*/{TOKENIZER}"))) == 1
    assert first.tokenizer.fingerprint == second.tokenizer.fingerprint
    assert (first.fingerprint, first.text_sha256) == (second.fingerprint, second.text_sha256)
    tokens = {first.tokenizer.decode([token]) for token in range(256, first.tokenizer.vocab_size)}
    assert {" quick", " range"} & tokens == {" quick", " range"}
    assert mixture(tokenizer=first.tokenizer).fingerprint == first.fingerprint


def test_texts_are_learned_from_equally() -> None:
    pieces = {"a": ["aé" * 5], "b": ["b" * 40, "c" * 60]}
    given = "".join(balanced([lambda t=t: iter(t) for t in pieces.values()], 120))  # type: ignore[misc]
    assert 57 <= sum(len(sign.encode()) for sign in given if sign in "aé") <= 60
    assert sum(sign in "bc" for sign in given) == 60


def test_the_first_repeated_window_is_known_before_the_first_step(texts: Path) -> None:
    order = mixture().order(8, seed=1)
    sample, part = order.first_repeated()
    limits = [one.windows_per_epoch for one in order.orders]
    assert all(count <= limit for count, limit in zip(order.shares.counts(sample), limits, strict=True))
    assert order.shares.counts(sample + 1)[part] == limits[part] + 1
    assert order.epochs(sample)[part] == 1


def test_a_part_with_too_little_text_is_named(texts: Path) -> None:
    with pytest.raises(ValueError, match=r"^data\.parts\.fox=text: the training part has \d+ tokens.*block_size=1500"):
        mixture(block_size=1500)
