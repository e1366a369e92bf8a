"""Checkpoints with random weights, and comparison of a model with one of transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gptexp.config.conversion import to_plain
from gptexp.config.model import ModelConfig
from gptexp.config.tokenizer import ByteConfig
from gptexp.generation.decoding import stream_tokens
from gptexp.models.build import build_model
from gptexp.models.weights import model_tensors
from gptexp.objectives.loading import load_model
from gptexp.runs import checkpoint as ckpt
from gptexp.runs.finding import find_checkpoint
from gptexp.runs.opening import open_checkpoint
from gptexp.tokenizers import train_tokenizer
from support.runs import story


def random_checkpoint(path: Path, config: ModelConfig, tokenizer: Any = None, dtype: Any = None) -> Path:
    """A gptexp checkpoint with random weights that differ from the initial ones."""
    made = train_tokenizer(tokenizer or ByteConfig(), [story(30)], [story(30)])
    model = build_model(config, made.vocab_size, seed=3).to(dtype or torch.float32)
    torch.manual_seed(4)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    settings = {"model": to_plain(config), "name": "ours"}
    rest: dict[str, Any] = {"optimizer": {}, "data": {}, "metrics": {}}
    saved = ckpt.Checkpoint(step=7, model=model_tensors(model), config=settings, tokenizer=made.state_dict(), **rest)
    ckpt.save(saved, path)
    return path


def ours_of(run: object) -> tuple[torch.nn.Module, Any]:
    """Model and tokenizer of a run."""
    path = find_checkpoint(str(run))
    return load_model(open_checkpoint(path), path)


def assert_same(ours: torch.nn.Module, theirs: Any, vocab: int, length: int) -> None:
    """The logits of every position, and the greedy text of each model."""
    tokens = torch.randint(vocab, (3, length), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        a, b = ours(tokens), theirs(tokens).logits
    assert a.shape == b.shape == (3, length, vocab)
    assert float(a.std()) > 0.1
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    prompt, new = tokens[:1, : length // 2], length - length // 2
    written = theirs.generate(prompt, do_sample=False, max_new_tokens=new, pad_token_id=0, eos_token_id=None)
    greedy = stream_tokens(ours, prompt[0].tolist(), max_new_tokens=new, temperature=0)
    assert list(greedy) == written[0, length // 2 :].tolist()


def store_random(
    model: Any, embedding: torch.Tensor, folder: Path, tokenizer_folder: Path, store: Callable[..., object] | None
) -> Path:
    """Write a model of transformers with random weights, and a tokenizer. store: in place of save_pretrained."""
    for parameter in model.parameters():  # biases and gains are also random; they are initialized to 0 and 1
        torch.nn.init.normal_(parameter, std=0.3)
    embedding.data[0] = 0  # <|endoftext|> is never the most probable token; it would end a text
    folder.mkdir()
    for file in tokenizer_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (store or type(model).save_pretrained)(model, folder)
    return folder
