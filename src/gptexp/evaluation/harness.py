"""A run as a model of EleutherAI's lm-evaluation-harness, under the name gptexp.

Log-likelihoods are those of `questions`, and greedy texts those of `gptexp generate --temperature 0`. The harness
decides how texts become contexts and continuations, and computes the metrics.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
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

from gptexp.evaluation.questions import answers, question
from gptexp.generation.decoding import make_decoder, stream_texts, texts_that_fit
from gptexp.models.kernels.fastest import fastest_kernels
from gptexp.objectives.loading import open_run

DEFAULT_DEVICE = "cuda:0"  # of the harness, whether or not there is a GPU
OPTIONS = {"do_sample", "temperature", "top_k", "top_p", "until", "max_gen_toks"}  # that generate_until understands


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
        self.batch, device = _batch(batch_size), "auto" if device == DEFAULT_DEVICE else device
        opened = open_run(str(run), Path(logs), device, precision)
        self.model, self.vocabulary, self.placement = opened.model, opened.tokenizer, opened.placement
        self.max_length, self.step = opened.block_size, opened.checkpoint.step

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

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each continuation, in nats, and whether greedy decoding gives it.

        The longest contexts lose their beginning.

        Raises:
            ValueError: a continuation has more tokens than block_size.
        """
        found = [(0.0, True)] * len(requests)  # of a continuation without tokens
        asked = {
            i: question(before or [self.eot_token_id], after, self.max_length)
            for i, (_, before, after) in enumerate(requests)
            if after
        }
        numbers, answered = [*asked], answers(self.model, self.vocabulary, [*asked.values()], self.batch)
        with self.placement.context(), fastest_kernels(self.model, self.placement.device.type):
            for i, one in tqdm(answered, "log-likelihoods", len(asked), disable=disable_tqdm):
                found[numbers[i]] = -one.nats, one.greedy
        return found

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
        options = [_options(request.args[1]) for request in requests]
        texts = [""] * len(requests)
        order = sorted(range(len(requests)), key=lambda i: (repr(options[i]), -len(contexts[i])))
        with tqdm(desc="texts", total=len(requests), disable=disable_tqdm) as bar, self.placement.context():
            for _, group in groupby(order, key=lambda i: repr(options[i])):
                rows = [*group]
                alike, longest = options[rows[0]], len(contexts[rows[0]])
                size = self.batch or texts_that_fit(self.model, longest + alike["max_new_tokens"])
                for first in range(0, len(rows), size):
                    batch = rows[first : first + size]
                    decoder = make_decoder(self.model, [contexts[row] for row in batch], alike["max_new_tokens"])
                    seeds = [(torch.initial_seed() + row) % 2**63 for row in batch]
                    for text, piece in stream_texts(decoder, self.vocabulary, seeds, plain=False, **alike):
                        texts[batch[text]] += piece
                    bar.update(len(batch))
        return texts


def _batch(given: int | str | None) -> int | None:
    if given is None or str(given).startswith("auto"):
        return None
    if not str(given).isdecimal() or int(given) < 1:
        raise ValueError(f"batch_size={given}: must be at least 1, or auto")
    return int(given)


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """Return generation options of the harness as those of `stream_texts`."""
    found = normalize_gen_kwargs(given)
    for name in found.keys() - OPTIONS:
        raise ValueError(f"{name}={found[name]}: gptexp can't generate with it; leave it out of the generation_kwargs")
    return {
        "stops": [*filter(None, found["until"])],
        "max_new_tokens": found["max_gen_toks"],
        "temperature": float(found.get("temperature", 1.0)) if found["do_sample"] else 0.0,
        "top_k": found.get("top_k") or None,
        "top_p": found.get("top_p"),
    }


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
