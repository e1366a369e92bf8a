"""`gptexp generate`: text from a prompt."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gptexp.runs.finding import find_checkpoint
from gptexp.util.text import printable

if TYPE_CHECKING:
    from gptexp.generation.decoding import Decoder


COUNTS = ("max-new-tokens", "num-samples", "samples", "tokens")  # options that are at least 1


def run(arguments: argparse.Namespace) -> None:
    """Generate the texts that the command line requests."""
    require_ranges(arguments)
    if arguments.backend == "numpy" and arguments.device not in ("auto", "cpu"):
        raise ValueError(f"--device={arguments.device}: --backend numpy computes on the CPU; leave one of them out")
    find_checkpoint(arguments.run, arguments.logs)  # a missing run is refused before torch is imported
    writer = Writer(arguments)
    with writer.placement.context():
        if arguments.interactive:
            converse(writer)
        else:
            writer.write(arguments.prompt or [""], arguments.seed)


def require_ranges(arguments: argparse.Namespace) -> None:
    """Check the options of sampling, as far as the command has them. ValueError: the option and the remedy."""
    wrong = [stop for stop in getattr(arguments, "stop", None) or [] if not _can_come(stop)]
    top_p = getattr(arguments, "top_p", None)
    counts = {name: getattr(arguments, name.replace("-", "_"), 1) for name in COUNTS}
    checks = {
        **{f"--{name}": (count >= 1, count, "at least 1") for name, count in counts.items()},
        "--temperature": (0 <= arguments.temperature < math.inf, arguments.temperature, "a number from 0"),
        "--top-k": (arguments.top_k >= 0, arguments.top_k, "at least 1, or 0 for all tokens"),
        "--top-p": (top_p is None or 0 < top_p <= 1, top_p, "above 0, at most 1"),
        "--seed": (0 <= arguments.seed < 2**63, arguments.seed, "a whole number from 0"),
        "--stop": (not wrong, repr(wrong[0]) if wrong else "", "at least one character, without control characters"),
    }
    for flag, (holds, value, right) in checks.items():
        if not holds:
            raise ValueError(f"{flag}={value}: must be {right}")


def _can_come(stop: str) -> bool:
    """Whether a stop string can occur: generated text has no control characters."""
    from gptexp.generation.streaming import plain_text

    return bool(stop) and plain_text(stop) == stop


class Writer:
    """Generates texts with a model and its tokenizer."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from gptexp.objectives.loading import open_run

        self.arguments = arguments
        device = "cpu" if arguments.backend == "numpy" else arguments.device
        run = open_run(arguments.run, arguments.logs, device, arguments.precision)
        self.model, self.tokenizer, self.placement = run.model, run.tokenizer, run.placement

    def write(self, prompts: list[str], seed: int) -> None:
        """Print num_samples texts per prompt: the first while it is generated, the others when they are complete."""
        from gptexp.generation.decoding import texts_that_fit

        samples = range(self.arguments.num_samples)
        # An invalid prompt is refused before anything is printed.
        longest = max(len(self._encoded(prompt)) for prompt in prompts)
        size = texts_that_fit(self.model, longest + self.arguments.max_new_tokens)
        texts = [(prompt, seed + sample) for prompt in prompts for sample in samples]
        for first in range(0, len(texts), size):
            batch = texts[first : first + size]
            pieces: list[list[str]] = [[] for _ in batch]
            for text, piece in self.stream(batch):
                if text == 0 and first == 0:
                    print(piece, end="", flush=True)
                else:
                    pieces[text].append(piece)
            for text, complete in enumerate(pieces):
                if first or text:
                    print("\n\n---\n", file=sys.stderr if not sys.stdout.isatty() else sys.stdout)
                    print("".join(complete), end="")
                print(flush=True)

    def stream(self, texts: list[tuple[str, int]]) -> Iterator[tuple[int, str]]:
        """Yield (index of the text, a piece of it) for prompts and seeds; the first pieces are the prompts."""
        from gptexp.generation.decoding import stream_texts
        from gptexp.generation.streaming import plain_text

        decoder = self._decoder([self._encoded(prompt) for prompt, _ in texts])
        for text, (prompt, _) in enumerate(texts):
            yield text, plain_text(prompt)
        yield from stream_texts(
            decoder,
            self.tokenizer,
            [seed for _, seed in texts],
            stops=self.arguments.stop or [],
            max_new_tokens=self.arguments.max_new_tokens,
            temperature=self.arguments.temperature,
            top_k=self.arguments.top_k or None,
            top_p=self.arguments.top_p,
        )

    def _decoder(self, prompts: list[list[int]]) -> Decoder:
        from gptexp.generation.decoding import ReferenceDecoder, make_decoder

        if self.arguments.backend == "numpy":
            return ReferenceDecoder(self.model, prompts)
        return make_decoder(self.model, prompts, self.arguments.max_new_tokens)

    def _encoded(self, prompt: str) -> list[int]:
        """Return the tokens of a prompt; of an empty one the start of a text."""
        encode = self.tokenizer.encode_special if self.arguments.allow_special else self.tokenizer.encode
        tokens: list[int] = encode(prompt).tolist()
        return tokens or [self.tokenizer.start]


def converse(writer: Writer) -> None:
    """Read prompts in a loop: Ctrl-C stops the text, not the program; an empty line repeats the last prompt."""
    seed, last = writer.arguments.seed, (writer.arguments.prompt or [""])[-1]
    while True:
        try:
            print("prompt> ", end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            if not line:
                print(file=sys.stderr)
                return
            last = _unescaped(line.rstrip("\r\n")) or last
            writer.write([last], seed)
        except KeyboardInterrupt:
            print("\n(stopped; Ctrl-D ends)", file=sys.stderr)
            continue
        except ValueError as error:
            print(f"error: {printable(str(error))}", file=sys.stderr)
        finally:
            seed += writer.arguments.num_samples


def _unescaped(line: str) -> str:
    """Replace `\\n` in a prompt by a line break; no other escape is supported."""
    return line.replace("\\n", "\n")
