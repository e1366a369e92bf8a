"""The published GPT-2 models: their folders in huggingface_hub's cache, downloaded on first use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gptexp.runs.huggingface.config import CONFIG
from gptexp.tokenizers.huggingface_files import FILES
from gptexp.util.text import first_line

REPOSITORIES = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
}
SETTINGS = [CONFIG, *FILES]
WEIGHTS = ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"]


def snapshot(name: str, is_whole: Callable[[Path], bool], *, weights: bool) -> Path:
    """Return the folder of a published model; weights=False downloads no weights.

    A complete copy in the cache is used without asking the network for a newer version.

    Raises:
        ValueError: the download failed; the message says how to get the files by hand.
    """
    cached = _cached(REPOSITORIES[name])
    if cached is not None and is_whole(cached):
        return cached
    try:
        from huggingface_hub import snapshot_download

        wanted = [*SETTINGS, *(WEIGHTS if weights else ())]
        folder = Path(snapshot_download(REPOSITORIES[name], allow_patterns=wanted))
    except Exception as error:  # network errors have many types
        raise ValueError(_advice(name, f"{type(error).__name__}: {first_line(error)[:160]}")) from None
    if not is_whole(folder):
        raise ValueError(_advice(name, "the copy in the cache is incomplete"))
    return folder


def _cached(repository: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, CONFIG)
    return Path(found).parent if isinstance(found, str) else None


def _advice(name: str, why: str) -> str:
    return (
        f"{name}: not on this machine, and the download failed ({why}). On a machine with a network, download "
        f"config.json, model.safetensors, vocab.json and merges.txt from "
        f"https://huggingface.co/{REPOSITORIES[name]}/tree/main into one folder, and give that folder instead of {name}"
    )
