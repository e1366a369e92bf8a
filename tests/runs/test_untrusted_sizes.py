"""Sizes in untrusted settings allocate nothing before they are checked against the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptexp.compose.composition import compose
from gptexp.config.conversion import to_plain
from gptexp.evaluation.scoring import score_stream
from gptexp.models.build import build_model, measure_model, plain_model
from gptexp.objectives.loading import load_model
from gptexp.runs import checkpoint as ckpt
from gptexp.tokenizers import load_tokenizer
from gptexp.training.build import build_experiment
from gptexp.util.errors import ConfigError
from support.checkpoints import SMALL, small_checkpoint


def with_model(**changes: Any) -> ckpt.Checkpoint:
    config = to_plain(compose([*SMALL, "tokenizer=byte"]))
    return small_checkpoint(config={**config, "model": {**config["model"], **changes}})


@pytest.mark.parametrize(
    "changes",
    [{"n_layer": 9_999}, {"n_embd": 10**9, "n_head": 1}, {"n_embd": 10**15, "n_head": 1}, {"mlp_ratio": 1e14},
     {"position": "rope", "block_size": 10**9}, {"block_size": 10**15}],
)  # fmt: skip
def test_sizes_that_contradict_the_weights_are_refused(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"a\.ckpt: "):
        load_model(with_model(**changes), "a.ckpt")


def test_init_from_refuses_layers_without_weights_before_building(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    monkeypatch.chdir(tmp_path)
    ckpt.save(with_model(n_layer=9_999), tmp_path / "a.ckpt")
    monkeypatch.setattr("gptexp.training.basis.measure_model", lambda *_: pytest.fail("a model was built"))
    config = compose(["init_from=a.ckpt", "data=pydocs", "trainer=cpu", f"paths.cache={tmp_path}"])
    with pytest.raises(ValueError, match=r"a\.ckpt: model\.n_layer=9999: must be at most"):
        build_experiment(config, tmp_path / "run", console=Console(quiet=True))


def test_a_model_with_impossible_sizes_gives_a_one_line_error() -> None:
    config = compose(["model.n_embd=1000000000", "model.n_head=1"]).model
    with pytest.raises(ValueError, match=r"model: is larger than any tensor can be .*; give smaller sizes") as caught:
        measure_model(lambda: plain_model(config, 300), 8)
    assert "\n" not in str(caught.value)


def test_a_long_block_size_costs_nothing_for_a_short_text() -> None:
    config = compose(["model=bigram", f"model.block_size={2**20}"]).model
    model, tokenizer = build_model(config, 257, seed=1), load_tokenizer({"kind": "byte"})
    shapes: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    pieces = [np.arange(20, dtype=np.int64)]
    score_stream(model, tokenizer, pieces, block_size=2**20, stride=2**19)
    assert shapes == [(1, 19)]


def test_validation_windows_are_no_longer_than_the_text(tmp_path: Path) -> None:
    from gptexp.data.batches import ValBatches

    class Store:
        def __len__(self) -> int:
            return 12

        def read(self, start: int, stop: int) -> np.ndarray:
            return np.arange(start, stop)

    (tokens, targets) = ValBatches(Store(), 10**9, eot=None, batch=4)[0]  # type: ignore[arg-type]
    assert tokens.tolist() == [list(range(11))]
    assert torch.equal(targets, tokens + 1)


def test_an_untrusted_adapter_rank_is_refused_without_allocation(tmp_path: Path) -> None:
    from gptexp.objectives.loading import load_trained

    held = with_model()
    held.config["finetune"] = {"kind": "lora", "rank": 10**12, "alpha": 1.0, "dropout": 0.0, "targets": ["c_attn"]}
    with pytest.raises((ValueError, ConfigError), match="rank"):
        load_trained(held, "a.ckpt", merge=False)
