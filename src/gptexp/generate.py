"""python -m gptexp.generate RUN --prompt "…": write on from a prompt."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from gptexp.cli import one_line_errors


def parser() -> argparse.ArgumentParser:
    """The command line; plain argparse, because a prompt may be full of commas, quotes and brackets."""
    p = argparse.ArgumentParser(
        prog="python -m gptexp.generate",
        description="Write text with a trained model. The text goes to standard output, notices to standard error.",
    )
    p.add_argument("run", metavar="RUN", help="a run folder, a checkpoint file, or `latest`")
    p.add_argument("--prompt", default="", help="the text to go on from (default: the start of a document)")
    p.add_argument("--max-new-tokens", type=int, default=200, help="default: %(default)s")
    p.add_argument("--temperature", type=float, default=0.8, help="0: always the likeliest token; default: %(default)s")
    p.add_argument("--top-k", type=int, default=50, help="choose among the k likeliest; default: %(default)s")
    p.add_argument("--top-p", type=float, help="choose among the likeliest that make up this probability")
    p.add_argument("--num-samples", type=int, default=1, help="default: %(default)s")
    p.add_argument("--seed", type=int, default=1, help="the same seed writes the same text; default: %(default)s")
    p.add_argument("--logs", type=Path, default=Path("logs"), help="where `latest` looks; default: %(default)s")
    p.add_argument("--interactive", action="store_true", help="ask for prompts; Ctrl-C stops the text, Ctrl-D ends")
    return p


def main(argv: list[str] | None = None) -> None:
    """The door."""
    arguments = parser().parse_args(argv)
    with one_line_errors():
        _require_ranges(arguments)
        from gptexp.runs import find_checkpoint

        path = find_checkpoint(arguments.run, arguments.logs)
        writer = Writer(path, arguments)
        if arguments.interactive:
            converse(writer)
        else:
            for sample in range(arguments.num_samples):
                if sample:
                    print("\n\n---\n", file=sys.stderr if not sys.stdout.isatty() else sys.stdout)
                writer.write(arguments.prompt, arguments.seed + sample)
                print(flush=True)


def _require_ranges(arguments: argparse.Namespace) -> None:
    checks = {
        "--max-new-tokens": (arguments.max_new_tokens >= 1, arguments.max_new_tokens, "at least 1"),
        "--temperature": (arguments.temperature >= 0, arguments.temperature, "at least 0"),
        "--top-k": (arguments.top_k >= 0, arguments.top_k, "at least 1, or 0 for all tokens"),
        "--top-p": (arguments.top_p is None or 0 < arguments.top_p <= 1, arguments.top_p, "above 0, at most 1"),
        "--num-samples": (arguments.num_samples >= 1, arguments.num_samples, "at least 1"),
        "--seed": (0 <= arguments.seed < 2**63, arguments.seed, "a whole number from 0"),
    }
    for flag, (holds, value, right) in checks.items():
        if not holds:
            raise ValueError(f"{flag}={value}: must be {right}")


class Writer:
    """A model and its tokenizer, ready to write."""

    def __init__(self, path: Path, arguments: argparse.Namespace) -> None:
        from gptexp.checkpoint import open_run
        from gptexp.loading import load_model

        self.arguments = arguments
        self.model, self.tokenizer = load_model(open_run(path), path)

    def write(self, prompt: str, seed: int) -> None:
        """Stream the prompt and what follows to standard output, as plain text."""
        out = sys.stdout
        for piece in self.stream(prompt, seed):
            out.write(piece)
            out.flush()

    def stream(self, prompt: str, seed: int) -> Iterator[str]:
        """The prompt, then text piece by piece, never half a character."""
        import torch

        from gptexp.sampling import TextStream, plain_text, stream_tokens

        tokens = self.tokenizer.encode(prompt).tolist()
        if not tokens:
            tokens = [self._start_token()]
        yield plain_text(prompt)
        text = TextStream(self.tokenizer.decode_bytes)
        stream = stream_tokens(
            self.model,
            tokens,
            max_new_tokens=self.arguments.max_new_tokens,
            temperature=self.arguments.temperature,
            top_k=self.arguments.top_k or None,
            top_p=self.arguments.top_p,
            generator=torch.Generator().manual_seed(seed),
            stop_token=self.tokenizer.eot,
        )
        for token in stream:
            yield text.push([token])
        yield text.finish()

    def _start_token(self) -> int:
        """Without a prompt: the end of the text before, or a line break, or the first symbol."""
        if self.tokenizer.eot is not None:
            return self.tokenizer.eot
        try:
            return int(self.tokenizer.encode("\n")[0])
        except ValueError:
            return 0


def converse(writer: Writer) -> None:
    """A prompt loop: Ctrl-C stops the text, not the program; an empty line repeats the last prompt."""
    seed, last = writer.arguments.seed, writer.arguments.prompt
    while True:
        try:
            print("prompt> ", end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            if not line:
                print(file=sys.stderr)
                return
            last = _unescaped(line.rstrip("\n")) or last
            writer.write(last, seed)
        except KeyboardInterrupt:
            print("\n(stopped; Ctrl-D ends)", file=sys.stderr)
            continue
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
        else:
            print(flush=True)
        seed += 1


def _unescaped(line: str) -> str:
    """`\\n` typed in a prompt is a line break; nothing else is special."""
    return line.replace("\\n", "\n")


if __name__ == "__main__":
    main()
