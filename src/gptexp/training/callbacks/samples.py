"""Text samples at each validation."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from gptexp.config import Config, SamplesConfig
from gptexp.data.batches import scored
from gptexp.data.mixture import MixtureData
from gptexp.data.prepared import PreparedData
from gptexp.data.shards import TokenStore
from gptexp.generation.decoding import stream_tokens
from gptexp.generation.streaming import plain_text
from gptexp.machine.lightning import pl
from gptexp.runs import samples
from gptexp.runs.layout import SAMPLES
from gptexp.tokenizers import Tokenizer
from gptexp.training.module import LitGPT
from gptexp.util.files import atomic_write, open_append
from gptexp.util.seeds import sample_seed, seed_generator
from gptexp.util.text import literal


class TextSamples(pl.Callback):
    """Writes a text sample into samples.md and TensorBoard after each validation.

    The length depends on the size of the validation text (scored_tokens), so that sampling costs less than the
    validation: generating one token costs about as much as scoring sixteen in a batch.
    """

    def __init__(
        self, folder: Path, config: SamplesConfig, tokenizer: Tokenizer, prompt: str, scored_tokens: int
    ) -> None:
        self.path, self.config, self.tokenizer, self.prompt = folder / SAMPLES, config, tokenizer, prompt
        self.scored_tokens = scored_tokens
        self.text = ""

    def on_train_start(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitGPT)
        if trainer.is_global_zero and self.path.exists():  # steps after the checkpoint are repeated
            written = samples.read(self.path.parent)
            kept = "".join(samples.section(step, text) for step, text in written if step <= lit.step)
            atomic_write(self.path, kept.encode())

    def on_validation_end(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitGPT)
        text = self.generate(trainer, lit)
        if text is None:
            return
        self.text = text
        if trainer.is_global_zero:
            self.record(trainer.loggers, lit.step, text)

    def generate(self, trainer: pl.Trainer, lit: LitGPT) -> str | None:
        """Return the sample of the current step; None without one, and on ranks that have nothing to do."""
        length = min(self.config.tokens, max(8, self.scored_tokens // 16))
        sharded = isinstance(trainer.strategy, pl.strategies.ModelParallelStrategy)
        if not self.config.tokens or not (trainer.is_global_zero or sharded):
            return None
        eager = torch.compiler.set_stance("force_eager") if lit.compiled else nullcontext()
        with eager:  # each new length of the text would be compiled again
            return self._write(lit, length, stop=not sharded)

    def _write(self, lit: LitGPT, length: int, *, stop: bool) -> str:
        """Generate a text. stop: end at the end-of-text token; a sharded model needs equal steps on all ranks."""
        generator = seed_generator(torch.Generator(), sample_seed(lit.config.seed, lit.step))
        prompt = self.tokenizer.encode(self.prompt).tolist()
        stream = stream_tokens(
            lit.model,
            prompt,
            max_new_tokens=length,
            temperature=self.config.temperature,
            top_k=self.config.top_k,
            generator=generator,
            stop_token=self.tokenizer.eot if stop else None,
        )
        return plain_text(self.tokenizer.decode([*prompt, *stream]))

    def record(self, loggers: Iterable[pl.loggers.Logger], step: int, text: str) -> None:
        """Write a sample into samples.md and TensorBoard."""
        with open_append(self.path) as file:
            file.write(samples.section(step, text))
        for logger in loggers:
            writer: Any = getattr(logger, "experiment", None)
            if hasattr(writer, "add_text"):
                writer.add_text("sample", as_html(self.prompt, text), step)


def as_html(prompt: str, text: str) -> str:
    """Return a text as one line of HTML, which Markdown leaves as it is, with its prompt in bold."""
    head = plain_text(prompt)
    size = len(head) if text.startswith(head) else 0  # a tokenizer may decode the prompt to other characters
    return f"<pre><strong>{literal(text[:size])}</strong>{literal(text[size:])}</pre>"


def text_samples(config: Config, folder: Path, data: PreparedData) -> TextSamples:
    """Return the callback of a run on these data."""
    val = next(iter(data.parts.values())).val if isinstance(data, MixtureData) else data.val
    assert isinstance(val, TokenStore)  # the objective generates text
    tokens, _ = scored(val, data.tokenizer.token_bytes, data.tokenizer.eot)
    return TextSamples(folder, config.callbacks.samples, data.tokenizer, _prompt(config, data.tokenizer, val), tokens)


def _prompt(config: Config, tokenizer: Tokenizer, val: TokenStore) -> str:
    """Return the user's prompt, or the first few characters of the validation text."""
    if prompt := config.callbacks.samples.prompt:
        try:
            tokenizer.encode(prompt)
        except ValueError as error:
            raise ValueError(f"callbacks.samples.prompt={prompt}: {error}") from None
        return prompt
    head = val.read(0, min(64, len(val)))
    return tokenizer.decode(head.tolist()).split("\n")[0][:24] or "\n"
