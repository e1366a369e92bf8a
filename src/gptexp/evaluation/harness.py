"""A run as a model of EleutherAI's lm-evaluation-harness, under the name gptexp.

Log-likelihoods are those of `questions`, and greedy texts those of `gptexp generate --temperature 0`. The harness
decides how texts become contexts and continuations, and computes the metrics.
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lm_eval.models  # noqa: F401 (registers the harness's own models, which it omits if it knows another one)
import torch
from lm_eval import evaluator, simple_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, make_table
from tqdm import tqdm

from gptexp.evaluation.questions import Answer, answers, question
from gptexp.generation.decoding import Generation, make_decoder, texts_that_fit
from gptexp.generation.streaming import UntilStop
from gptexp.models.kernels.fastest import fastest_kernels
from gptexp.objectives.loading import load_placed
from gptexp.runs.finding import find_checkpoint
from gptexp.util.seeds import seed_generator

DEFAULT_DEVICE = "cuda:0"  # of the harness, whether or not there is a GPU
SAMPLING = ("do_sample", "temperature", "top_k", "top_p", "until", "max_gen_toks")  # what generate_until understands


@dataclass(frozen=True)
class Sampling:
    """How a text is continued, as by `Generation`. until: strings that end it."""

    until: tuple[str, ...]
    max_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None


@register_model("gptexp")
class HarnessModel(TemplateLM):  # type: ignore[misc]  # the harness has no types
    """A trained language model.

    Args:
        run, logs, precision: as the arguments of `gptexp evaluate`.
        device: auto, cpu, cuda, mps, or the harness's default cuda:0, which means auto.
        batch_size: questions per forward pass; None or auto: as many as fit.
        max_batch_size: ignored; the harness passes it to every model.

    Raises:
        ValueError: no such run or device, or a run that predicts no next token.
    """

    def __init__(
        self,
        run: str = "latest",
        logs: str | Path = "logs",
        device: str = "auto",
        precision: str = "32-true",
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        path, self.batch = find_checkpoint(str(run), Path(logs)), _batch(batch_size)
        device = "auto" if device == DEFAULT_DEVICE else device
        checkpoint, self.model, self.vocabulary, self.placement = load_placed(path, device, precision)
        self.max_length, self.step = int(checkpoint.config["model"]["block_size"]), checkpoint.step

    def get_model_info(self) -> dict[str, Any]:
        """Return what the harness records about the model beside its arguments."""
        return {"step": self.step, "tokenizer": self.vocabulary.kind, "precision": self.placement.precision}

    @property
    def eot_token_id(self) -> int:
        """The token before a text without context: <|endoftext|>, or what `Tokenizer.start` has in its place."""
        return self.vocabulary.start

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Return the tokens of a text. ValueError: a character without a token."""
        tokens: list[int] = self.vocabulary.encode(string).tolist()
        return tokens

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each continuation, in nats, and whether greedy decoding gives it.

        The longest contexts lose their beginning.

        Raises:
            ValueError: a continuation has more tokens than block_size.
        """
        asked = [(request.args, *self._tokens(*request.args)) for request in requests]
        return self._loglikelihood_tokens(asked, disable_tqdm)

    def _tokens(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if not context:
            return [], self.tok_encode(continuation)
        before, after = self._encode_pair(context, continuation)
        return before, after

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        found = [Answer(0.0, True)] * len(requests)  # of a continuation without tokens
        numbers = [i for i, (_, _, after) in enumerate(requests) if after]
        questions = [question(b or [self.eot_token_id], a, self.max_length) for _, b, a in requests if a]
        answered = answers(self.model, self.vocabulary, questions, self.batch)
        with self.placement.context(), fastest_kernels(self.model, self.placement.device.type):
            for i, one in tqdm(answered, "log-likelihoods", len(questions), disable=disable_tqdm):
                found[numbers[i]] = one
        return [(-one.nats, one.greedy) for one in found]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of each text, in nats: of all its tokens, in the windows of the harness."""
        windows: list[tuple[None, list[int], list[int]]] = []
        numbers: list[int] = []
        found = [0.0] * len(requests)
        for i, request in enumerate(requests):
            for window in get_rolling_token_windows(
                self.tok_encode(request.args[0]), self.eot_token_id, self.max_length, context_len=1
            ):
                windows.append((None, *make_disjoint_window(window)))
                numbers.append(i)
        for i, (value, _) in zip(numbers, self._loglikelihood_tokens(windows, disable_tqdm), strict=True):
            found[i] += value
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the continuation of each context, without the string that ended it.

        Each text is drawn with a seed of its own, which follows from torch's seed and its number.

        Raises:
            ValueError: an option of generation that gptexp does not have.
        """
        contexts = [self.tok_encode(request.args[0]) or [self.eot_token_id] for request in requests]
        sampling = [_sampling(request.args[1]) for request in requests]
        texts = [""] * len(requests)
        order = sorted(range(len(requests)), key=lambda i: (repr(sampling[i]), -len(contexts[i])))
        with tqdm(desc="texts", total=len(requests), disable=disable_tqdm) as bar, self.placement.context():
            for settings, group in groupby(order, key=sampling.__getitem__):
                rows = [*group]
                size = self.batch or texts_that_fit(self.model, len(contexts[rows[0]]) + settings.max_new_tokens)
                for first in range(0, len(rows), size):
                    batch = rows[first : first + size]
                    for row, piece in self._continued(batch, contexts, settings):
                        texts[row] += piece
                    bar.update(len(batch))
        return texts

    def _continued(
        self, rows: Sequence[int], contexts: Sequence[list[int]], settings: Sampling
    ) -> Iterator[tuple[int, str]]:
        """Yield a row and a piece of its text, for texts that are generated together."""
        generation = Generation(
            make_decoder(self.model, [contexts[row] for row in rows], settings.max_new_tokens),
            [seed_generator(torch.Generator(), (torch.initial_seed() + row) % 2**63) for row in rows],
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            stop_token=self.vocabulary.eot,
        )
        streams = [codecs.getincrementaldecoder("utf-8")(errors="replace") for _ in rows]
        until = [UntilStop(settings.until) for _ in rows]
        for text, token in generation:
            yield rows[text], until[text].push(streams[text].decode(self.vocabulary.decode_bytes([token])))
            if until[text].found:
                generation.end(text)
        for text, row in enumerate(rows):
            yield row, until[text].push(streams[text].decode(b"", final=True)) + until[text].finish()


def _batch(given: int | str | None) -> int | None:
    if given is None or str(given).startswith("auto"):
        return None
    if not str(given).isdecimal() or int(given) < 1:
        raise ValueError(f"batch_size={given}: must be at least 1, or auto")
    return int(given)


def _sampling(options: dict[str, Any]) -> Sampling:
    found = normalize_gen_kwargs(options)
    for name in found.keys() - SAMPLING:
        raise ValueError(f"{name}={found[name]}: gptexp can't generate with it; leave it out of the generation_kwargs")
    return Sampling(
        until=tuple(filter(None, found["until"])),
        max_new_tokens=found["max_gen_toks"],
        temperature=float(found.get("temperature", 1.0)) if found["do_sample"] else 0.0,
        top_k=found.get("top_k") or None,
        top_p=found.get("top_p"),
    )


def evaluated(model: HarnessModel, names: Sequence[str], folder: Path | None) -> tuple[dict[str, Any], str]:
    """Return the metrics of tasks by name, and the harness's table of them.

    folder: of own tasks, whose files are code (docs/evaluate.md).

    Raises:
        ValueError: a task that the harness does not know.
    """
    manager = TaskManager(include_path=None if folder is None else str(folder))
    for name in names:
        if not manager.match_tasks([name]):
            raise ValueError(f"--tasks={name}: no such task; `gptexp lm-eval ls tasks` lists them")
    tasks = manager.match_tasks([*names])
    # The harness would record facts of this machine, which takes seconds and makes git complain outside a repository.
    no_record = patch.multiple(evaluator, get_git_commit_hash=lambda: None, add_env_info=lambda found: None)
    with no_record, redirect_stdout(sys.stderr):  # where the harness reports its progress
        found = simple_evaluate(model=model, tasks=tasks, task_manager=manager, log_samples=False)
    return {"tasks": found["results"], "step": model.step}, make_table(found).strip()
