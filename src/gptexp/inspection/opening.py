"""What to inspect: a run, and the text, which is given or is the beginning of the run's own validation text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gptexp.data.mixture import Texts
from gptexp.data.text_file import tokens_of
from gptexp.objectives.loading import Opened
from gptexp.tokenizers import Tokenizer

TOKENS = 256  # of the text, if the command line does not say; the page grows with their square


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks for.

    prompt, text: at most one of them; text: a file, in `encoding`; neither: validation text. tokens: the most that are
    used; None: TOKENS, or block_size if that is less. trust_data: whether the corpus that the settings of any run name
    may be read. device, precision: where the models compute, as the options of these names.
    """

    prompt: str | None = None
    text: Path | None = None
    encoding: str = "utf-8"
    tokens: int | None = None
    logs: Path = Path("logs")
    cache: Path = Path("data/cache")
    trust_data: bool = False
    device: str = "auto"
    precision: str = "32-true"


def tokens_for(run: Opened, request: Request, corpus: Texts | None) -> tuple[Tensor, str]:
    """Return the tokens to show, (T,), and a note on where they come from; corpus: needed if no text is given.

    Raises:
        ValueError: a text that can't be encoded or has fewer than two tokens; --tokens above block_size.
    """
    most = request.tokens or min(TOKENS, run.block_size)
    if not 2 <= most <= run.block_size:
        raise ValueError(f"--tokens={most}: must be from 2 to {run.block_size}, the model's block_size")
    default = "the validation text" if request.prompt is None else "--prompt"
    source = default if request.text is None else f"{request.text}"
    tokens = _first_tokens(_pieces(run.tokenizer, request, corpus), most + 1)
    if len(tokens) < 2:
        raise ValueError(f"{source}: has {len(tokens)} tokens, and the first is only context; give at least 2")
    size = f"the first {most} tokens" if len(tokens) > most else f"all {len(tokens)} tokens"
    return tokens[:most], f"Text: {size} of {source}."


def _pieces(tokenizer: Tokenizer, request: Request, corpus: Texts | None) -> Iterable[np.ndarray]:
    if request.prompt is not None:
        try:
            return [tokenizer.encode(request.prompt)]
        except ValueError as error:
            raise ValueError(f"--prompt: {error}") from None
    if request.text is not None:
        return tokens_of(request.text, tokenizer, request.encoding)
    assert corpus is not None
    return (store[:] for store in corpus.stores("val").values())


def _first_tokens(pieces: Iterable[np.ndarray], count: int) -> Tensor:
    return torch.from_numpy(np.fromiter(islice(chain.from_iterable(pieces), count), np.int64))


def retokenized(tokens: Tensor, first: Tokenizer, second: Tokenizer, most: int) -> Tensor:
    """Return the text of the tokens of one tokenizer as at most so many tokens of another.

    A character whose end is cut off is left out. ValueError: a character without a token.
    """
    if first.fingerprint == second.fingerprint:
        return tokens[:most]
    ids = tokens.numpy()
    ends = np.flatnonzero(ids == (-1 if first.eot is None else first.eot))
    texts = (first.decode_bytes(document).decode("utf-8", "ignore") for document in np.split(ids, ends))
    separator = np.array([] if second.eot is None else [second.eot], np.int64)
    pieces = [piece for text in texts for piece in (separator, second.encode(text))]
    return _first_tokens(pieces[1:], most)
