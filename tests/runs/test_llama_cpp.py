"""An exported GGUF file in llama.cpp. Runs where llama-cpp-python is installed, which takes minutes to compile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("gguf")
pytest.importorskip("llama_cpp")

import llama_cpp

from gptexp.commands.export import export
from gptexp.config.conversion import from_plain
from gptexp.config.tokenizer import BPEConfig
from gptexp.generation.decoding import stream_tokens
from support.huggingface_folders import ours_of, random_checkpoint
from support.tokenizer_files import HARD

GPT2: dict[str, Any] = {"kind": "gpt", "block_size": 128, "n_layer": 2, "n_head": 4, "n_embd": 64}
LLAMA: dict[str, Any] = {
    **GPT2,
    "n_kv_head": 2,
    "bias": False,
    "norm": "rmsnorm",
    "position": "rope",
    "activation": "swiglu",
    "rope_theta": 5000.0,
}
# The most that logits differ. llama.cpp reads GELU from a table in float16.
MODELS: dict[str, tuple[dict[str, Any], float]] = {
    "gpt2": (GPT2, 2e-2),
    "gpt2 without biases, untied": ({**GPT2, "bias": False, "tie_weights": False}, 2e-2),
    "llama": (LLAMA, 1e-4),
    "llama with biases, untied": ({**LLAMA, "bias": True, "tie_weights": False}, 1e-4),
    "qwen3": ({**LLAMA, "qk_norm": True, "qk_norm_gain": True, "norm_eps": 1e-3}, 1e-4),
    "mup": ({**LLAMA, "parametrization": "mup", "base_width": 16}, 1e-4),
}


@pytest.mark.parametrize("case", MODELS)
def test_llama_cpp_gives_the_same_tokens_logits_and_greedy_text(tmp_path: Path, case: str) -> None:
    config, most = MODELS[case]
    path = random_checkpoint(tmp_path / "ours.ckpt", from_plain("model", config), BPEConfig(vocab_size=290))
    export(str(path), tmp_path / "out", file_format="gguf")
    ours, tokenizer = ours_of(path)
    wide: Any = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32, "verbose": False}
    theirs = llama_cpp.Llama(str(tmp_path / "out/model.gguf"), n_ctx=128, logits_all=True, **wide)
    for text in HARD[:-1]:  # the last is empty
        tokens = theirs.tokenize(text.encode(), add_bos=False, special=False)
        assert tokens == tokenizer.encode(text).tolist(), text
    prompt = tokenizer.encode("Hello world").tolist()
    with torch.inference_mode():
        greedy = list(stream_tokens(ours, prompt, max_new_tokens=100, temperature=0))
        logits = ours(torch.tensor([prompt + greedy]))[0]
    assert len(set(greedy)) > 5 or case == "gpt2"  # tied and random, it repeats one token; its logits tell more
    generated = theirs.generate(prompt, temp=0.0, repeat_penalty=1.0)
    assert [next(generated) for _ in range(100)] == greedy
    theirs.reset()
    theirs.eval(prompt + greedy)
    np.testing.assert_allclose(theirs.scores[: len(logits)], logits.numpy(), rtol=0, atol=most)
