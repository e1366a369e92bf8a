"""Create the pictures of the documentation: `make gallery`, or `python docs/gallery.py terminal` for one of them.

The screenshots need Chromium or Chrome. Complete sweeps are not run again.
"""

from __future__ import annotations

import argparse
import codecs
import html
import io
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PICTURES = Path(__file__).parent / "pictures"
COLUMNS, LINES = 100, 20
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "microsoft-edge")
TIMEOUT, DRAWING_TIME = 60_000, 5_000  # milliseconds
# 皱 is rare, so it consists of several tokens.
SENTENCE = (
    "训练结束之后，运行目录里保存着检查点和指标。换一种分词器，每个词元的损失就不能直接比较，"
    "但每字节比特数可以。纸上的褶皱不影响这个结论。"
)
LADDER = "bigram,mlp,self_attention,mini_gpt,modern_gpt"


def main() -> None:
    pictures: dict[str, Callable[[], None]] = {
        "terminal": terminal,
        "tokenizer": lambda: sweep_picture("tokenizer", "--baseline", "tokenizer=char"),
        "block_size": lambda: sweep_picture("block_size"),
        "where": where,
        "report": report,
        "inspect": inspect,
        "inspect_chinese": inspect_chinese,
        "tensorboard": tensorboard,
        "watch": watch,
        "ladder": ladder,
    }
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("picture", nargs="*", choices=[[], *pictures], help="default: all of them, in this order")
    for name in p.parse_args().picture or pictures:
        print(f"{name} …", flush=True)
        pictures[name]()


# ------------------------------------------------------------------------------- a terminal


def terminal() -> None:
    """Draw the terminal while the default experiment trains, after its second validation."""
    import pyte

    screen = pyte.Screen(COLUMNS, LINES)
    stream, utf8 = pyte.Stream(screen), codecs.getincrementaldecoder("utf-8")()
    screen.draw("$ gptexp train")
    screen.linefeed()
    screen.carriage_return()
    for chunk in _output_on_terminal([sys.executable, "-m", "gptexp.train"]):
        stream.feed(utf8.decode(chunk))
        bar = next((line for line in screen.display if re.match(r"step \d+/\d+ ", line)), "")
        if sum("val/bpb" in line for line in screen.display) == 2 and re.search(r"[5-9]\d%", bar):
            break
    else:
        raise SystemExit("terminal: the run ended before its second validation")
    write("terminal.svg", _svg(screen, title="gptexp train"))


def _output_on_terminal(command: list[str]) -> Iterator[bytes]:
    """Yield what a program writes to a terminal of COLUMNS × LINES; terminate it when the caller stops reading."""
    main_end, child_end = pty.openpty()
    size = {"COLUMNS": str(COLUMNS), "LINES": str(LINES), "TERM": "xterm-256color"}
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | size
    with subprocess.Popen(command, stdin=child_end, stdout=child_end, stderr=child_end, env=environment) as process:
        os.close(child_end)
        try:
            while chunk := os.read(main_end, 65536):
                yield chunk
        except OSError:  # Linux raises it when the program has closed its end
            pass
        finally:
            process.terminate()
            os.close(main_end)


def _svg(screen: object, title: str) -> bytes:
    """Return the screen as SVG, in the monospaced font of the reader."""
    from rich.console import Console
    from rich.style import Style
    from rich.text import Text

    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for row in range(max(n for n, line in enumerate(screen.display) if line.strip()) + 1):  # type: ignore[attr-defined]
        text = Text(no_wrap=True)
        for column in range(COLUMNS):
            cell = screen.buffer[row][column]  # type: ignore[attr-defined]
            text.append(cell.data, Style(color=_colour(cell.fg), bold=cell.bold))
        console.print(text)
    drawn = console.export_svg(title=title)
    return re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.S).encode()  # no fonts from other servers


def _colour(name: str) -> str | None:
    if name == "default":
        return None
    return f"#{name}" if re.fullmatch("[0-9a-f]{6}", name) else {"brown": "yellow"}.get(name, name)


# ------------------------------------------------------------------------------- sweeps


def gptexp(command: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", f"gptexp.{command}", *arguments], check=True)


def sweep(name: str, *overrides: str) -> Path:
    gptexp("train", "-m", f"sweep.name={name}", "hydra/launcher=cores", *overrides)
    return Path("logs/sweeps") / name


def sweep_picture(name: str, *options: str) -> None:
    """Draw the plot of a predefined sweep."""
    gptexp("compare", str(sweep(name, f"sweep={name}")), *options)
    write(f"{name}.png", (Path("logs/sweeps") / name / "report" / "ablation.png").read_bytes())


def where() -> None:
    """Draw in which tokens the difference between two block sizes lies."""
    settings = ["sweep=block_size", "model.block_size=32,128", "trainer.max_steps=1000", "optimizer=adamw"]
    gptexp("compare", str(sweep("where", *settings)), "--where")
    write("where.png", Path("logs/sweeps/where/report/where.png").read_bytes())


def report() -> None:
    """Take a screenshot of report.html of the block_size sweep."""
    folder = sweep("block_size", "sweep=block_size")
    gptexp("compare", str(folder))
    write("report.png", screenshot((folder / "report" / "report.html").resolve().as_uri(), 1000, 1400))


def inspect() -> None:
    """Take screenshots of the page of `gptexp inspect` about the default experiment."""
    from gptexp.report.reading import find_runs

    (run,) = find_runs([sweep("inspect", "seed=1")])
    page = (run / "inspect.html").resolve()
    gptexp("commands.inspect", str(run), "--out", str(page))
    for part, height in (("text", 575), ("attention", 720), ("lens", 470)):
        write(f"inspect_{part}.png", screenshot(f"{page.as_uri()}#{part}", 1200, height, drawn="[data-ready]"))


def inspect_chinese() -> None:
    """Take a screenshot of a Chinese sentence as a model that was trained on the Chinese pages predicts it."""
    from gptexp.report.reading import find_runs

    text = ["data=text", f"data.path={PICTURES.parent}/zh/*.md", "tokenizer=bpe_1k", "trainer.max_steps=200"]
    (run,) = find_runs([sweep("inspect_chinese", "seed=1", *text)])
    page = (run / "inspect.html").resolve()
    gptexp("commands.inspect", str(run), "--prompt", SENTENCE, "--out", str(page))
    write("inspect_chinese.png", screenshot(f"{page.as_uri()}#text", 1200, 520, drawn="[data-ready]"))


def ladder() -> None:
    """Print the table of docs/options.md: every kind of model at equal tokens, with the text that it generates."""
    from gptexp.report.reading import find_runs, last_sample, read_runs

    folder = sweep("ladder", f"model={LADDER}", "data.global_batch_size=null", "data.global_batch_tokens=1536")
    runs, _ = read_runs(find_runs([folder]))
    rows = ["| `model=` | parameters | val/bpb | generated text |", "|---|--:|--:|---|"]
    for run in sorted(runs, key=lambda run: -run.metrics["val/bpb"]):
        kind = re.sub(r".*model=", "", run.folder.name)
        text = " ".join(last_sample(run.folder).split())[:160]
        rows.append(f"| `{kind}` | {run.parameters:,} | {run.metrics['val/bpb']:.3f} | {_in_a_cell(text)} |")
    print("\n".join(rows))


def _in_a_cell(text: str) -> str:
    """Escape text for a Markdown table, where a pipe ends the cell and a backtick ends the code."""
    return f"<code>{html.escape(text).replace('|', '&#124;').replace('`', '&#96;')}</code>"


# ------------------------------------------------------------------------------- a browser


def tensorboard() -> None:
    """Take a screenshot of the curves of the block_size sweep in TensorBoard."""
    with _served(sweep("block_size", "sweep=block_size")) as url:
        url = f"{url}?tagFilter=val%7Ctrain&smoothing=0#timeseries"
        write("tensorboard.png", screenshot(url, 1400, 900, drawn="line-chart canvas"))


def watch() -> None:
    """Take a screenshot of everything that TensorBoard shows of two small runs in one view."""
    size = ["model.n_layer=2", "model.n_embd=32", "model.n_head=2", "model.block_size=32", "data.global_batch_size=8"]
    steps = ["trainer.max_steps=120", "trainer.val_every_steps=40", "optimizer=muon", "optimizer.scalar_lr=0.004"]
    seen = ["trainer.log_norms=true", "callbacks.attention_entropy=true", "callbacks.activations=true"]
    with _served(sweep("watch", "optimizer.lr=0.003,0.01", *size, *steps, *seen)) as url:
        write("watch.png", screenshot(f"{url}#custom_scalars", 1500, 1490, drawn="text=entropy of attention"))


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", "0", "--host", "127.0.0.1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            yield next(found[0] for line in server.stderr if (found := re.search(r"http://\S+", line)))
        finally:
            server.terminate()


def screenshot(url: str, width: int, height: int, drawn: str = "body") -> bytes:
    """Take a screenshot of a page after an element has appeared and been drawn."""
    from playwright.sync_api import sync_playwright

    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"no browser: install one of {', '.join(BROWSERS)}")
    with sync_playwright() as driver:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to run as root otherwise
        opened = driver.chromium.launch(executable_path=browser, args=options)
        page = opened.new_page(viewport={"width": width, "height": height})
        page.goto(url)
        page.wait_for_selector(drawn, timeout=TIMEOUT)
        page.wait_for_timeout(DRAWING_TIME)
        return page.screenshot()


def write(name: str, picture: bytes) -> None:
    """Write a file to docs/pictures; PNGs get a palette, which reduces their size to a third."""
    if name.endswith(".png"):
        from PIL import Image

        buffer = io.BytesIO()
        Image.open(io.BytesIO(picture)).convert("RGB").quantize(256).save(buffer, "png", optimize=True)
        picture = buffer.getvalue()
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / name).write_bytes(picture)
    print(f"  {PICTURES / name}: {len(picture) // 1024} KiB", flush=True)


if __name__ == "__main__":
    main()
