"""The page of a run: its numbers equal those of the model and of `gptexp evaluate`, for every tokenizer and model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptexp.commands.inspect import main
from gptexp.config.tokenizer import BPEConfig, ByteConfig, CharConfig
from gptexp.inspection.norms import logged_norms
from gptexp.inspection.places import loss_by_place
from gptexp.inspection.predictions import in_text, token_text
from gptexp.runs.norms import GRADIENT, UPDATE, WEIGHT, column
from gptexp.tokenizers import train_tokenizer
from support.trained_runs import CHINESE, PLAIN, TEXT, opened


@pytest.fixture
def here(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(runs)
    return runs


@pytest.fixture
def inspect(here: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command in this process with these arguments; return its JSON output."""

    def run(*arguments: str) -> dict[str, Any]:
        main([*arguments, "--json", "--logs", "."])
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--logs", "."])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("run", ["gpt", "words", "bigram"])
def test_predictions_are_those_of_the_model(inspect: Any, run: str) -> None:
    view = inspect(run, "--prompt", PLAIN[:40])["runs"][0]
    model, tokenizer = opened(run)
    tokens = torch.from_numpy(tokenizer.encode(PLAIN[:40])).long()[:16]
    with torch.no_grad():
        p = model(tokens[None])[0].softmax(-1)
    shown = view["tokens"]
    assert "".join(token["text"] for token in shown) == tokenizer.decode(tokens.tolist())
    assert shown[0] | {"top": [], "loss": None, "p": None, "rank": None} == shown[0]
    for i, token in enumerate(shown[1:]):
        true = p[i, tokens[i + 1]].item()
        assert token["p"] == pytest.approx(true, rel=1e-4)
        assert token["loss"] == pytest.approx(-math.log2(true), rel=1e-4)
        assert token["rank"] == 1 + int((p[i] > true).sum())
        assert [q for _, q in token["top"]] == pytest.approx(p[i].topk(5).values.tolist(), rel=1e-4)
    assert view["loss"] == pytest.approx(np.mean([token["loss"] for token in shown[1:]]), rel=1e-4)


def test_the_default_text_is_the_beginning_of_the_validation_text(inspect: Any, here: Path) -> None:
    view = inspect("gpt")["runs"][0]
    text = (here / "story.txt").read_text(encoding="utf-8")
    assert "".join(token["text"] for token in view["tokens"]) == text[-round(len(text) / 10) :][:16]
    assert view["notes"] == ["Text: the first 16 tokens of the validation text."]


def test_a_gpt_has_every_part_of_the_page(inspect: Any) -> None:
    view = inspect("gpt", "--prompt", PLAIN, "--tokens", "9")["runs"][0]
    assert len(view["tokens"]) == view["attention"]["length"] == 9
    assert (view["attention"]["layers"], view["attention"]["heads"], len(view["attention"]["table"])) == (1, 2, 2)
    assert view["lens"]["layers"] == ["embedding", "layer 0"]
    assert view["lens"]["loss"][-1][1:] == pytest.approx([token["loss"] for token in view["tokens"][1:]], rel=1e-4)
    assert view["lens"]["likeliest"][-1][1:] == [token["top"][0][0] for token in view["tokens"][1:]]
    assert view["direct"]["parts"] == ["embedding", "attention 0", "feed-forward 0", "bias of the final norm"]
    assert {len(row) for row in view["direct"]["effect"]} == {9}
    assert dict(view["settings"])["model.n_head"] == "2"
    assert view["norms"] is None


def test_a_model_without_attention_shows_what_it_has(inspect: Any) -> None:
    view = inspect("bigram", "--prompt", PLAIN)["runs"][0]
    assert (view["attention"], view["lens"], view["direct"]) == (None, None, None)
    assert "No attention, lens and direct effects: the model is no GPT." in view["notes"]
    assert len(view["places"]["loss"]) == 16


def test_the_loss_by_place_sums_to_the_validation_loss(here: Path, inspect: Any) -> None:
    """The text has fewer windows than are scored at most, so every window is."""
    result = json.loads((here / "gpt/result.json").read_text(encoding="utf-8"))
    places = inspect("gpt", "--prompt", PLAIN)["runs"][0]["places"]
    total = sum(loss * n for loss, n in zip(places["loss"], places["count"], strict=True))
    assert sum(places["count"]) == 599
    assert total / 599 == pytest.approx(result["metrics"]["val/loss"] / math.log(2), rel=1e-4)
    assert min(places["error"]) > 0


def test_a_large_model_is_scored_on_fewer_windows(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gptexp.compose.composition import compose
    from gptexp.data.prepare import prepare
    from support.runs import TINY

    model, tokenizer = opened("gpt")
    store = prepare(compose([*TINY, "data.path=story.txt"]).data, tokenizer, Path("data/cache")).val
    monkeypatch.setattr("gptexp.inspection.places.FLOPS", 1.0)
    assert max(loss_by_place(model, tokenizer, store, 16).count) == 4


def test_two_runs_with_other_tokens_are_compared_by_stretches(inspect: Any) -> None:
    found = inspect("gpt", "--against", "words", "--prompt", PLAIN)
    spans = found["difference"]["spans"]
    assert "".join(span["text"] for span in spans) == PLAIN[: len("".join(span["text"] for span in spans))]
    scored = [span for span in spans if span["first"] is not None]
    assert len(spans) > 3
    size = sum(span["bytes"] for span in scored)
    for i, side in enumerate(("first", "second")):
        mean = sum(span[side] for span in scored) / size
        assert found["difference"]["bits_per_byte"][i] == pytest.approx(mean, rel=1e-3)


def test_a_run_against_itself_differs_nowhere(inspect: Any) -> None:
    found = inspect("gpt", "--against", "gpt")
    assert found["runs"][0]["tokens"] == found["runs"][1]["tokens"]
    assert all(span["first"] == span["second"] for span in found["difference"]["spans"])
    assert len(found["difference"]["spans"]) == 16


def test_the_page_is_written_into_the_run_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["gpt", "--logs", "."])
    assert capsys.readouterr().out.splitlines()[-1] == str(Path("gpt/inspect.html"))
    html = (here / "gpt/inspect.html").read_text(encoding="utf-8")
    assert '"title":"gpt"' in html


def test_a_corpus_that_may_not_be_read_leaves_a_note(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["gpt", "--logs", "elsewhere", "--prompt", PLAIN, "--json"])
    view = json.loads(capsys.readouterr().out)["runs"][0]
    assert view["places"] is None
    assert "No loss by place, which needs the validation text: gpt: is outside --logs elsewhere" in view["notes"][1]
    with pytest.raises(SystemExit):
        main(["gpt", "--logs", "elsewhere"])
    assert "add --trust-data" in capsys.readouterr().err


ERRORS = [
    (("--tokens", "1"), "error: --tokens=1: must be at least 2, because the first is only context\n"),
    (("--tokens", "17"), "error: --tokens=17: must be from 2 to 16, the model's block_size\n"),
    (("--prompt", "A"), "error: --prompt: has 1 tokens, and the first is only context; give at least 2\n"),
    (("--prompt", "A 🙂"), "error: --prompt: "),
    (("--text", "nothing.txt"), "error: nothing.txt: no such file\n"),
    (("--text", "some.txt", "--encoding", "utf-9"), "error: --encoding=utf-9: unknown text encoding; try utf-8"),
    (
        ("--text", "new.txt", "--encoding", "ascii"),
        "error: new.txt: byte 6 (line 2) can't be read as --encoding=ascii",
    ),
    (("--text", "new.txt"), "error: new.txt: character "),
    (("--encoding", "big5"), "error: --encoding=big5: requires --text FILE\n"),
    (("--out", "gpt"), "error: --out=gpt: is a folder; give a file such as gpt/inspect.html\n"),
    (("--against", "nothing"), "error: nothing: no such run; give a run folder, a checkpoint file, or `latest`\n"),
]


@pytest.mark.parametrize(("arguments", "error"), ERRORS, ids=[" ".join(arguments) for arguments, _ in ERRORS])
def test_a_wrong_option_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], error: str
) -> None:
    (here / "new.txt").write_text("The\nca雪", encoding="utf-8")
    assert refused(capsys, "gpt", *arguments).startswith(error)


def test_a_character_of_several_tokens_is_shown_in_the_first_of_them(inspect: Any) -> None:
    text = "The 路 sleeps"  # no token of this run has more than a byte of 路
    shown = inspect("words", "--prompt", text)["runs"][0]["tokens"]
    assert [(token["text"], token["reading"]) for token in shown if token["reading"]] == [
        ("\\xe8", "路"),
        ("\\xb7", "·"),
        ("\\xaf", "·"),
    ]
    assert "".join(token["reading"] or token["text"] for token in shown).replace("·", "") == text


@pytest.mark.filterwarnings("always::UserWarning")
@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "big5"])
def test_the_encoding_of_a_text_is_recognized(
    inspect: Any, here: Path, capsys: pytest.CaptureFixture[str], encoding: str
) -> None:
    (here / "old.txt").write_bytes(CHINESE.encode(encoding))
    expected = inspect("words", "--prompt", CHINESE)["runs"][0]["tokens"]
    main(["words", "--text", "old.txt", "--json", "--logs", "."])
    out, error = capsys.readouterr()
    assert json.loads(out)["runs"][0]["tokens"] == expected
    told = f"notice: --encoding=auto: read as {encoding}: old.txt; if the text is wrong, set --encoding=\n"
    assert error == ("" if encoding == "utf-8" else told)


def test_tokens_are_displayed_for_every_tokenizer() -> None:
    char = train_tokenizer(CharConfig(), [TEXT], [TEXT])
    byte = train_tokenizer(ByteConfig())
    bpe = train_tokenizer(BPEConfig(vocab_size=260), ["路路路路"], ["路路路路"])
    assert [token_text(char, token) for token in char.encode("— \t")] == ["—", " ", "\t"]
    assert [token_text(byte, token) for token in byte.encode("aé")] == ["a", "\\xc3", "\\xa9"]
    assert {token_text(bpe, token) for token in bpe.encode("路")} <= {
        "\\xe8\\xb7",
        "\\xaf",
        "路",
        "\\xe8",
        "\\xb7\\xaf",
    }
    assert in_text([b"a\xe8", b"\xb7", b"\xafb", b"", b"\xe8\xb7\xaf", b"\xb7c\xe8"]) == [
        "a路",
        "·",
        "·b",
        "",
        "路",
        "\\xb7c\\xe8",
    ]
    assert token_text(byte, 256) == "<|endoftext|>"
    assert token_text(byte, 27) == "\\x1b"


def test_logged_norms_are_read_in_the_order_of_the_model(tmp_path: Path) -> None:
    assert logged_norms(tmp_path) is None
    groups = ("head", "h.0.attn")
    names = [column(quantity, group) for group in groups for quantity in (WEIGHT, GRADIENT, UPDATE)]
    rows = [f"step,{','.join(names)}", "1,1,2,3,4,5,6", "2,,,,,,", "3,7,,9,10,11,12"]
    (tmp_path / "metrics.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    found = logged_norms(tmp_path)
    assert found is not None
    assert found.steps == [1, 3]
    assert [group.name for group in found.groups] == ["h.0.attn", "head"]
    assert (found.groups[1].weight, found.groups[1].gradient, found.groups[1].update) == ([1, 7], [2, None], [3, 9])
