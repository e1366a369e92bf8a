"""The tokens of a text as they are displayed, and what a model predicted at each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from gptexp.inspection.view import TokenView
from gptexp.models.losses import IGNORED
from gptexp.tokenizers import Tokenizer
from gptexp.util.text import visible

LISTED = 5
CONTINUED = "·"


def targets_of(tokens: Tensor, eot: int | None) -> Tensor:
    """Return the token to predict after each token but the last, (T - 1,); <|endoftext|> becomes IGNORED."""
    return tokens[1:].masked_fill(tokens[1:] == (-1 if eot is None else eot), IGNORED)


def shown(data: bytes) -> str:
    """Return UTF-8 to display: what is no whole character, and what moves or hides text, becomes an escape."""
    return visible(data.decode("utf-8", "backslashreplace"))


def in_text(pieces: Sequence[bytes]) -> list[str]:
    """Return pieces of UTF-8 to display one after the other.

    A character that is cut is displayed in the piece where it begins, and as CONTINUED in the others, so that a text
    stays readable whose characters consist of several tokens.
    """
    owner = [i for i, piece in enumerate(pieces) for _ in piece]
    parts, start = [""] * len(pieces), 0
    for character in b"".join(pieces).decode("utf-8", "surrogateescape"):
        end = start + len(character.encode("utf-8", "surrogateescape"))
        first, *others = dict.fromkeys(owner[start:end])
        parts[first] += character
        for other in others:
            parts[other] += CONTINUED
        start = end
    return [shown(part.encode("utf-8", "surrogateescape")) for part in parts]


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """Return the text of a token to display; of one without bytes, its name or number."""
    nothing = tokenizer.eot_text if token == tokenizer.eot else f"<{token}>"
    return shown(tokenizer.decode_bytes([token])) or nothing


def token_views(tokenizer: Tokenizer, tokens: Tensor, targets: Tensor, logits: Tensor) -> list[TokenView]:
    """Return the tokens (T,) with the predictions of all but the first from logits (T, V); targets: (T - 1,)."""
    tokens, targets, logits = tokens.cpu(), targets.cpu(), logits.cpu()
    log_p = logits[:-1].double().log_softmax(-1)  # (T - 1, V)
    true = log_p.gather(-1, tokens[1:, None])  # (T - 1, 1)
    ranks = (1 + (log_p > true).sum(-1)).tolist()
    top = log_p.topk(min(LISTED, log_p.shape[-1]))
    likely = [
        [(token_text(tokenizer, token), math.exp(value)) for token, value in zip(*row, strict=True)]
        for row in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]
    bits = [-value / math.log(2) for value in true[:, 0].tolist()]
    scored = (targets != IGNORED).tolist()
    parts = [(token_text(tokenizer, token), int(tokenizer.token_bytes[token])) for token in tokens.tolist()]
    read = in_text([tokenizer.decode_bytes([token]) for token in tokens.tolist()])
    readings = [None if text in ("", alone) else text for text, (alone, _) in zip(read, parts, strict=True)]
    (first, reading), *others = zip(parts, readings, strict=True)
    return [TokenView(*first, loss=None, p=None, rank=None, top=[], reading=reading)] + [
        TokenView(*part, loss=b if known else None, p=2**-b, rank=rank, top=pairs, reading=reading)
        for (part, reading), b, known, rank, pairs in zip(others, bits, scored, ranks, likely, strict=True)
    ]
