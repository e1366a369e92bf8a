"""The published GPT-2s by name: their folder in huggingface_hub's cache, fetched on first use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gptexp.runs.huggingface.config import CONFIG
from gptexp.tokenizers.huggingface_files import FILES

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
    """The folder of a published model; its hundreds of megabytes only where weights are asked for.

    What the cache holds is taken as it is: without network, or where a newer version is out.

    Raises:
        ValueError: it can't be fetched; with what to get, from where, and how to hand it over.
    """
    cached = _cached(REPOSITORIES[name])
    if cached is not None and is_whole(cached):
        return cached
    try:
        from huggingface_hub import snapshot_download

        wanted = [*SETTINGS, *(WEIGHTS if weights else ())]
        folder = Path(snapshot_download(REPOSITORIES[name], allow_patterns=wanted))
    except Exception as error:  # a network fails in more ways than can be listed
        raise ValueError(_advice(name, f"{type(error).__name__}: {_first_line(error)}")) from None
    if not is_whole(folder):
        raise ValueError(_advice(name, "the copy in the cache isn't whole"))
    return folder


def _cached(repository: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, CONFIG)
    return Path(found).parent if isinstance(found, str) else None


def _advice(name: str, why: str) -> str:
    return (
        f"{name}: not on this machine, and can't be fetched ({why}). Where there is a network, get config.json, "
        f"model.safetensors, vocab.json and merges.txt from https://huggingface.co/{REPOSITORIES[name]}/tree/main "
        f"into one folder, and give that folder instead of {name}"
    )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")[:160]
