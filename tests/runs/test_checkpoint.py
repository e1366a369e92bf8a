"""A checkpoint is complete or absent, is plain data, and executes no code."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from gptexp.compose.composition import compose
from gptexp.models.build import build_model
from gptexp.models.weights import adopt_weights, load_weights, model_tensors
from gptexp.objectives.loading import load_model
from gptexp.runs import checkpoint as ckpt
from gptexp.runs.opening import load, open_checkpoint
from gptexp.tokenizers import load_tokenizer
from support.checkpoints import SMALL, small_checkpoint


def test_a_checkpoint_loads_with_weights_only_and_equals_what_was_saved(tmp_path: Path) -> None:
    saved = small_checkpoint()
    ckpt.save(saved, tmp_path / "a.ckpt")
    plain = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert plain["format"] == "gptexp checkpoint"
    loaded = load(tmp_path / "a.ckpt")
    assert (loaded.step, loaded.config, loaded.tokenizer) == (3, saved.config, {"kind": "byte"})
    assert loaded.precision is None  # as in older files, which lack it
    assert all(torch.equal(loaded.model[name], value) for name, value in saved.model.items())


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    saved = small_checkpoint()
    assert "transformer.wte.weight" in saved.model
    assert "lm_head.weight" not in saved.model
    model, tokenizer = load_model(saved, "here")
    assert model.get_parameter("lm_head.weight") is model.get_parameter("transformer.wte.weight")
    assert tokenizer.vocab_size == 257
    tokens = torch.arange(8)[None]
    again = build_model(compose([*SMALL, "tokenizer=byte"]).model, 257, seed=3)
    assert torch.equal(model(tokens), again(tokens))


def test_the_old_last_becomes_previous_and_best_is_a_second_name(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        ckpt.rotate(small_checkpoint(step), tmp_path, best=step == 2)
    steps = {name: load(tmp_path / name).step for name in ("last.ckpt", "previous.ckpt", "best.ckpt")}
    assert steps == {"last.ckpt": 3, "previous.ckpt": 2, "best.ckpt": 2}
    assert (tmp_path / "best.ckpt").stat().st_ino == (tmp_path / "previous.ckpt").stat().st_ino
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]


def test_a_failed_save_keeps_the_old_file_and_leaves_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ckpt.save(small_checkpoint(1), tmp_path / "last.ckpt")

    def broken(*_: Any) -> None:
        (next(tmp_path.glob(".*.tmp"), tmp_path / "x")).touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match=r"last\.ckpt"):
        ckpt.save(small_checkpoint(2), tmp_path / "last.ckpt")
    (tmp_path / "x").unlink(missing_ok=True)
    assert load(tmp_path / "last.ckpt").step == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_flipped_byte_is_detected_and_the_previous_file_is_used(tmp_path: Path) -> None:
    for step in (1, 2):
        ckpt.rotate(small_checkpoint(step), tmp_path, best=False)
    last = tmp_path / "last.ckpt"
    with zipfile.ZipFile(last) as archive:
        record = max(archive.infolist(), key=lambda r: r.file_size)
        offset = record.header_offset + 200 + record.file_size // 2
    damaged = bytearray(last.read_bytes())
    damaged[offset] ^= 1
    last.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"last\.ckpt: damaged \(record .+ fails its checksum\)"):
        load(last)
    with pytest.warns(UserWarning, match=r"damaged.*using previous\.ckpt"):
        assert open_checkpoint(last).step == 1


def test_two_damaged_generations_are_both_named_with_the_remedy(tmp_path: Path) -> None:
    for step in (1, 2):
        ckpt.rotate(small_checkpoint(step), tmp_path, best=False)
    for name in ("last.ckpt", "previous.ckpt"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"last\.ckpt: .*previous\.ckpt: .*from a backup.*delete both") as caught:
        open_checkpoint(tmp_path / "last.ckpt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 100, -10])
def test_a_truncated_file_is_named(tmp_path: Path, size: int) -> None:
    path = tmp_path / "last.ckpt"
    ckpt.save(small_checkpoint(), path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"last\.ckpt: "):
        load(path)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch owned",)


@pytest.mark.parametrize("legacy", [False, True])
def test_an_untrusted_pickle_executes_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.ckpt"
    if legacy:
        path.write_bytes(pickle.dumps(Evil()))
    else:
        torch.save({"format": "gptexp checkpoint", "version": 1, "model": Evil()}, path)
    with pytest.raises(ValueError, match=r"evil\.ckpt"):
        load(path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"model": {"kind": "os.system"}}}, "model.kind=os.system: unknown; choose one of"),
        ({"config": {"model": {"kind": "gpt", "n_layer": 9999}}}, "model.n_layer=9999: must be at most 16"),
        ({"config": {"model": {"kind": "gpt", "n_embd": 4800}}}, r"here: .* is \(24,\), the model's is \(14400,\)"),
        ({"config": {}}, "model: not a group of settings"),
        ({"tokenizer": {"kind": "char", "symbols": 5}}, "char"),
        ({"tokenizer": {"kind": "os"}}, "os"),
        ({"model": {"x": torch.zeros(1)}}, "here: .* is missing, the model's is"),
    ],
)
def test_untrusted_settings_are_refused_before_any_allocation(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_model(small_checkpoint(**changes), "here")


def test_a_tensor_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    """A file of one kilobyte that would become 512 TiB at the first copy."""
    plain = {**small_checkpoint().as_plain(), "model": {"x": torch.zeros(1).expand(1 << 20, 1 << 27)}}
    torch.save(plain, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="x has more numbers than the file contains"):
        load(tmp_path / "a.ckpt")


@pytest.mark.parametrize("field", ["step", "model", "config", "tokenizer", "metrics"])
def test_a_field_of_another_type_is_named(tmp_path: Path, field: str) -> None:
    plain = {**small_checkpoint().as_plain(), field: "surprise"}
    torch.save(plain, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=f"`{field}` is str"):
        load(tmp_path / "a.ckpt")


@pytest.mark.parametrize("value", ["bf16", "auto", 3, torch.zeros(2)])
def test_an_unknown_precision_is_refused(tmp_path: Path, value: object) -> None:
    torch.save({**small_checkpoint().as_plain(), "precision": value}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="its `precision` is not one of 32-true, bf16-mixed, 16-mixed, 64-true"):
        load(tmp_path / "a.ckpt")


def test_other_files_are_refused_as_checkpoints(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "lightning.ckpt")
    with pytest.raises(ValueError, match="not a gptexp checkpoint"):
        load(tmp_path / "lightning.ckpt")
    torch.save({**small_checkpoint().as_plain(), "version": 99}, tmp_path / "later.ckpt")
    with pytest.raises(ValueError, match="has format 99, this gptexp reads 1"):
        load(tmp_path / "later.ckpt")
    with pytest.raises(FileNotFoundError, match=r"nothing\.ckpt"):
        load(tmp_path / "nothing.ckpt")


def test_only_positions_are_cropped_to_a_smaller_block_size() -> None:
    stored = small_checkpoint().model
    config = compose([*SMALL, "model.block_size=4"]).model
    model = build_model(config, 257, seed=9)
    load_weights(model, stored, "there")
    assert torch.equal(model.get_parameter("transformer.wpe.weight"), stored["transformer.wpe.weight"][:4])
    wider = build_model(compose([*SMALL, "model.n_embd=16"]).model, 257, seed=9)
    before = model_tensors(wider)
    with pytest.raises(ValueError, match=r"there: .+ is \(.+\), the model's is \(.+\)"):
        load_weights(wider, stored, "there")
    assert all(torch.equal(before[name], value) for name, value in model_tensors(wider).items())


def test_invalid_contents_are_refused_at_saving(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="PosixPath"):
        ckpt.save(small_checkpoint(data={"path": Path("x")}), tmp_path / "a.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_contains_its_tokenizer(tmp_path: Path) -> None:
    checkpoint = small_checkpoint(tokenizer={"kind": "byte"})
    assert load_tokenizer(checkpoint.tokenizer).decode([72, 105]) == "Hi"


def test_persistent_buffers_are_saved_with_a_model() -> None:
    """User-defined models can have persistent buffers, such as running means. Recomputed buffers are not stored."""

    def make() -> torch.nn.Module:
        model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
        model.register_buffer("mask", torch.ones(2), persistent=False)
        return model

    model = make()
    model(torch.randn(8, 2))
    stored = model_tensors(model)
    assert {"1.running_mean", "1.num_batches_tracked"} <= stored.keys()
    assert "mask" not in stored
    again, adopted = make(), make()
    load_weights(again, stored, "here")
    adopt_weights(adopted, stored, "here")
    for other in (again, adopted):
        assert all(torch.equal(value, stored[name]) for name, value in other.state_dict().items() if name in stored)
    with pytest.raises(ValueError, match=r"here: 1\.num_batches_tracked is \(\), the model's is \(\) of whole numbers"):
        load_weights(make(), {**stored, "1.num_batches_tracked": torch.tensor(1.0)}, "here")
