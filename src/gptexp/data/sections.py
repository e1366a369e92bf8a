"""A corpus in sections, which any number of processes tokenize on any machines, joined to the shards of one process.

The process that asks writes the plan: the settings, the tokenizer, and where each section begins. A section's tokens
are a pure function of the plan and the text, and its folder is complete or absent. The join passes the pieces of all
sections in order to the writers that one process would use. What depends on earlier sections is decided only there:
<|endoftext|> between documents, data.max_tokens and data.val_bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from filelock import FileLock

from gptexp.config.conversion import from_plain, to_plain
from gptexp.config.data import DataConfig
from gptexp.data.cache import read_tokenizer, write_tokenizer
from gptexp.data.corpora import CorpusBase, StreamBase, open_corpus
from gptexp.data.make_shards import Request, finish, first_characters, part_writers, start_over, train_text, whole_text
from gptexp.data.shards import Shard, ShardWriter, TokenStore, token_dtype
from gptexp.data.split import DocumentSplit, Piece, by_characters, first_bytes
from gptexp.data.tokenizing import PartWriter, encode
from gptexp.tokenizers import Tokenizer, train_tokenizer
from gptexp.util.files import atomic_folder, make_folder, read_json, write_json

PLAN, SECTION = "plan.json", "section.json"
NO_LIMIT = 1 << 62
VAL, STARTS, CUTS = 1, 2, 4  # flags of a piece, as `PartWriter.add` takes them
BATCH = 1_000_000  # tokens written together


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a section of a text begins.

    place: for `CorpusBase.pieces_from`. characters: of the text before it. pieces: their number in the section.
    xxh3_128: of the text of the section.
    """

    place: list[int]
    characters: int
    pieces: int
    xxh3_128: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What determines the tokens of each of `count` sections, besides the text and the tokenizer.

    header: `Request.header`. data: settings of the corpus. starts, n_train: of a text, whose first n_train characters
    are for training. file_sizes: of a stream.
    """

    header: dict[str, Any]
    count: int
    data: dict[str, Any]
    starts: list[Start]
    n_train: int
    file_sizes: list[int]

    @classmethod
    def read(cls, place: Path) -> Plan:
        """Read the plan of a folder. ValueError, OSError: there is none."""
        plain = read_json(place / PLAN, at_most=1 << 30)
        return cls(**{**plain, "starts": [Start(**start) for start in plain["starts"]]})


def shard_in_sections(folder: Path, request: Request, count: int, run: Callable[[Path, list[int]], None]) -> None:
    """Fill the folder as `make_shards` does; the caller holds its lock.

    run: calls `tokenize_section` with its folder for each of its numbers, anywhere and in any order.

    Raises:
        ValueError: a section is missing after `run`.
    """
    place = folder.with_name(f"{folder.name}-parts-{count}")
    if not _is_planned(place, request.header):
        _write_plan(place, request, count)
    if left := missing_sections(place):
        run(place, left)
    if left := missing_sections(place):
        raise ValueError(f"prepare.parts={count}: {len(left)} parts are not complete, the first is number {left[0]}")
    _join(folder, place, request)
    for former in folder.parent.glob(f"{folder.name}-parts-*"):
        shutil.rmtree(former)


# -------------------------------------------------------------------------------------- plan


def _is_planned(place: Path, header: dict[str, Any]) -> bool:
    try:
        return Plan.read(place).header == header
    except (ValueError, OSError, TypeError, KeyError):
        return False


def _write_plan(place: Path, request: Request, count: int) -> None:
    """Divide the corpus and make the tokenizer."""
    corpus, data, tokenizer = request.corpus, request.data, request.tokenizer
    starts: list[Start] = []
    n_train, sizes = 0, []
    if isinstance(corpus, StreamBase):
        corpus.section(0, count)  # refuses a stream that can't be divided so often, before anything is written
        sizes, learned = corpus.file_sizes(), train_text(corpus, data)
    else:
        total, starts = _divided(corpus, count)
        n_train = int(total * data.train_fraction)
        learned = first_characters(corpus, n_train)
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = train_tokenizer(tokenizer, learned, whole_text(corpus, data))
    start_over(make_folder(place))
    write_tokenizer(place, tokenizer)
    plan = Plan(
        header=request.header, count=count, data=to_plain(data), starts=starts, n_train=n_train, file_sizes=sizes
    )
    write_json(place / PLAN, asdict(plan))


def _divided(corpus: CorpusBase, count: int) -> tuple[int, list[Start]]:
    """Return the characters of a text, and sections of about equally many; some are empty if it has few pieces."""
    pieces = [(at, len(text), _digest(text)) for at, _, text in corpus.pieces_from([0, 0])]
    total, before = sum(size for _, size, _ in pieces), 0
    sections: list[list[tuple[list[int], int, bytes]]] = [[] for _ in range(count)]
    for piece in pieces:
        sections[before * count // total].append(piece)
        before += piece[1]
    starts, before = [], 0
    for section in sections:
        at = section[0][0] if section else [0, 0]
        found = xxhash.xxh3_128_hexdigest(b"".join(digest for _, _, digest in section))
        starts.append(Start(place=at, characters=before, pieces=len(section), xxh3_128=found))
        before += sum(size for _, size, _ in section)
    return total, starts


def _digest(text: str) -> bytes:
    return xxhash.xxh3_128_digest(text.encode("utf-8", "surrogatepass"))


# ------------------------------------------------------------------------------------ tokens


def missing_sections(place: Path) -> list[int]:
    """Return the sections without tokens, up to the first from which on nothing is used."""
    plan, left = Plan.read(place), []
    train_tokens, val_bytes = plan.data["max_tokens"], plan.data["val_bytes"]
    for number in range(plan.count):
        if train_tokens is not None and val_bytes is not None and train_tokens <= 0 and val_bytes <= 0:
            break
        if not (path := _folder(place, number) / SECTION).exists():
            left.append(number)
            continue
        found = read_json(path)
        train_tokens = None if train_tokens is None else train_tokens - found["train_tokens"]
        val_bytes = None if val_bytes is None else val_bytes - found["val_bytes"]
    return left


def tokenize_section(place: Path, number: int) -> None:
    """Tokenize a section, unless that is done or its tokens are not used. It uses one core.

    Raises:
        ValueError: the text is not the one of the plan.
    """
    folder = _folder(place, number)
    with FileLock(place / f"{folder.name}.lock"):  # of a process that outlived the one that asked
        if number not in missing_sections(place):
            return
        for leftover in place.glob(f".{folder.name}.*.tmp"):
            shutil.rmtree(leftover)
        plan, tokenizer = Plan.read(place), read_tokenizer(place)
        data: DataConfig = from_plain("data", plan.data)
        with atomic_folder(folder) as made:
            _write_section(made, _pieces(plan, number, data, place.parent), tokenizer, data, ends=not plan.starts)


def _folder(place: Path, number: int) -> Path:
    return place / f"{number:05d}"


def _pieces(plan: Plan, number: int, data: DataConfig, cache: Path) -> Iterator[Piece]:
    """Yield the pieces of a section, all of validation included."""
    corpus = open_corpus(data, cache)
    wrong = f"data={data.kind}: the text of part {number} is not that of the plan; all machines need the same files"
    if isinstance(corpus, StreamBase):
        if corpus.file_sizes() != plan.file_sizes:
            raise ValueError(wrong)
        split = DocumentSplit(data.val_fraction, NO_LIMIT)
        texts = (text for _, text in corpus.section(number, plan.count).pieces())
        yield from (piece for text in texts if (piece := split.assign(text)))
        return
    start, found = plan.starts[number], xxhash.xxh3_128()

    def verified() -> Iterator[tuple[bool, str]]:
        for _, starts, text in islice(corpus.pieces_from(start.place), start.pieces):
            found.update(_digest(text))
            yield starts, text

    yield from by_characters(verified(), plan.n_train - start.characters, None)
    if found.hexdigest() != start.xxh3_128:
        raise ValueError(wrong)


def _write_section(folder: Path, pieces: Iterable[Piece], tokenizer: Tokenizer, data: DataConfig, ends: bool) -> None:
    """Write the columns of a section: tokens, and the length and the flags of each piece.

    ends: nothing has to be read once no further piece is used.
    """
    left = {False: data.max_tokens or NO_LIMIT, True: data.val_bytes or NO_LIMIT}  # training tokens, validation bytes
    used, waiting, size = dict.fromkeys(left, 0), list[tuple[np.ndarray, int]](), 0
    errors, pieces_done = dict[int, str](), 0
    writers = {name: ShardWriter(folder, name, values) for name, values in _columns(tokenizer).items()}
    with writers["tokens"], writers["lengths"], writers["flags"]:
        for piece in pieces:
            if used[piece.val] < left[piece.val]:
                tokens, error = encode(piece.text, tokenizer)
                errors |= {pieces_done: error} if error else {}  # raised by the join if it uses that part of the piece
                pieces_done += 1
                used[piece.val] += len(piece.text.encode()) if piece.val else len(tokens)
                flags = VAL * piece.val | STARTS * piece.starts | CUTS * tokenizer.cuts_runs(piece.text)
                waiting.append((tokens, flags))
                size += len(tokens)
            elif ends and all(used[part] >= left[part] for part in left):
                break
            if size >= BATCH:
                _write(writers, waiting)
                waiting, size = [], 0
        _write(writers, waiting)
    columns = {name: [asdict(shard) for shard in writer.shards] for name, writer in writers.items()}
    sizes = {"train_tokens": used[False], "val_bytes": used[True]}
    write_json(folder / SECTION, {"columns": columns, "errors": errors, **sizes})


def _columns(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the columns of a section with the number of values that each may have."""
    return {"tokens": tokenizer.vocab_size, "lengths": 1 << 32, "flags": 8}


def _write(writers: dict[str, ShardWriter], pieces: list[tuple[np.ndarray, int]]) -> None:
    if pieces:
        writers["tokens"].write(np.concatenate([tokens for tokens, _ in pieces]))
        writers["lengths"].write(np.array([len(tokens) for tokens, _ in pieces]))
        writers["flags"].write(np.array([flags for _, flags in pieces]))


# -------------------------------------------------------------------------------------- join


def _join(folder: Path, place: Path, request: Request) -> None:
    """Write the shards and the manifest from all sections in order."""
    start_over(folder)
    tokenizer, data = read_tokenizer(place), request.data
    train, val = part_writers(folder, data, tokenizer)
    validation = _Validation(val, tokenizer, data.val_bytes)
    with train.writer, val.writer:
        for number in range(Plan.read(place).count):
            if train.full and validation.full:
                break
            for flags, tokens, error in _read_section(_folder(place, number), tokenizer):
                part = validation if flags & VAL else train
                part.add(bool(flags & STARTS), tokens, bool(flags & CUTS))
                if error and not part.full:
                    raise ValueError(error)
    write_tokenizer(folder, tokenizer)
    finish(folder, request, tokenizer, train, val)


class _Validation:
    """Adds pieces to the validation part until it has `limit` bytes, as gptexp.data.split cuts them."""

    def __init__(self, part: PartWriter, tokenizer: Tokenizer, limit: int | None) -> None:
        self.part, self.tokenizer = part, tokenizer
        self.left = NO_LIMIT if limit is None else limit
        self.full = False

    def add(self, starts: bool, tokens: np.ndarray, cuts_runs: bool) -> None:
        """Add the tokens of a piece; of the last one, the tokens of its first bytes."""
        if self.full:
            return
        size = int(self.tokenizer.token_bytes[tokens].sum())
        if size > self.left:
            text = first_bytes(self.tokenizer.decode(tokens), self.left)
            tokens, cuts_runs = self.tokenizer.encode(text), self.tokenizer.cuts_runs(text)
        if len(tokens):
            self.part.add(starts, tokens, cuts_runs)
        self.full, self.left = size >= self.left, self.left - size


def _read_section(folder: Path, tokenizer: Tokenizer) -> Iterator[tuple[int, np.ndarray, str]]:
    """Yield flags, tokens and error of each piece. ValueError: the section is damaged."""
    found = read_json(folder / SECTION)
    columns, errors, stores = found["columns"], found["errors"], {}
    for name, values in _columns(tokenizer).items():
        stores[name] = TokenStore(folder, [Shard(**shard) for shard in columns[name]], token_dtype(values))
        stores[name].verify()
    lengths, flags = (stores[name].read(0, len(stores[name])).tolist() for name in ("lengths", "flags"))
    end = 0
    for number, (length, flag) in enumerate(zip(lengths, flags, strict=True)):
        start, end = end, end + length
        yield flag, stores["tokens"].read(start, end), errors.get(str(number), "")
