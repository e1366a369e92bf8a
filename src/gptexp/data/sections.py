"""A corpus in sections, which any number of processes tokenize on any machines, joined to the shards of one process.

The process that asks writes the plan: the settings, the tokenizer, and where each section begins. A section's tokens
are a pure function of the plan and the text, and its folder is complete or absent. The join passes the pieces of all
sections in order to the writers that one process would use. What depends on earlier sections is decided only there:
<|endoftext|> between documents, data.max_tokens and data.val_bytes.
"""

from __future__ import annotations

import shutil
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import accumulate, islice, pairwise
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
TOKENS, PIECES = "tokens", "pieces"  # columns of a section; PIECES has the number of tokens and the flags of each piece
VAL, STARTS, CUTS = 1, 2, 4  # flags of a piece, as `PartWriter.add` takes them
LARGEST = 1 << 32  # values of PIECES are smaller
NO_LIMIT = 1 << 62


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

    data: settings of the corpus. starts, n_train: of a text, whose first n_train characters are for training.
    file_sizes: of a stream.
    """

    count: int
    data: dict[str, Any]
    starts: list[Start]
    n_train: int
    file_sizes: list[int]

    @property
    def limits(self) -> list[int]:
        """The training tokens and the bytes of validation that are used, in the order of `Piece.val`."""
        return [NO_LIMIT if self.data[name] is None else self.data[name] for name in ("max_tokens", "val_bytes")]

    @classmethod
    def read(cls, place: Path) -> Plan:
        """Read the plan of a folder. ValueError: it is damaged."""
        plain = read_json(place / PLAN, at_most=1 << 30)
        return cls(**{**plain, "starts": [Start(**start) for start in plain["starts"]]})


def shard_in_sections(folder: Path, request: Request, count: int, run: Callable[[Path, list[int]], None]) -> None:
    """Fill the folder as `make_shards` does; the caller holds its lock.

    run: calls `tokenize_section` with its folder for each of its numbers, anywhere and in any order.

    Raises:
        ValueError: a section is missing after `run`.
    """
    place = folder.with_name(f"{folder.name}-parts-{count}")
    if not (place / PLAN).exists():  # the name of the folder stands for what determines its content
        _write_plan(place, request, count)
    if left := missing_sections(place):
        run(place, left)
    if left := missing_sections(place):
        raise ValueError(f"prepare.parts={count}: {len(left)} parts are not complete, the first is number {left[0]}")
    _join(folder, place, request)
    for former in folder.parent.glob(f"{folder.name}-parts-*"):
        shutil.rmtree(former, ignore_errors=True)  # a job that outlived its launcher may still hold a lock file


# -------------------------------------------------------------------------------------- plan


def _write_plan(place: Path, request: Request, count: int) -> None:
    """Divide the corpus and make the tokenizer."""
    corpus, data, tokenizer = request.corpus, request.data, request.tokenizer
    starts, n_train, sizes = list[Start](), 0, list[int]()
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
    plan = Plan(count=count, data=to_plain(data), starts=starts, n_train=n_train, file_sizes=sizes)
    write_json(place / PLAN, asdict(plan))


def _divided(corpus: CorpusBase, count: int) -> tuple[int, list[Start]]:
    """Return the characters of a text, and sections of about equally many; some are empty if it has few pieces."""
    pieces = [(place, len(text), _digest(text)) for place, _, text in corpus.pieces_from([0, 0])]
    places, sizes, digests = zip(*pieces, ([0, 0], 0, b""), strict=True)
    before = [0, *accumulate(sizes)][: len(places)]
    total = before[-1]
    cuts = [bisect_left(before, -(-number * total // count)) for number in range(count + 1)]
    return total, [
        Start(
            place=places[first],
            characters=before[first],
            pieces=end - first,
            xxh3_128=xxhash.xxh3_128_hexdigest(b"".join(digests[first:end])),
        )
        for first, end in pairwise(cuts)
    ]


def _digest(text: str) -> bytes:
    return xxhash.xxh3_128_digest(text.encode("utf-8", "surrogatepass"))


# ------------------------------------------------------------------------------------ tokens


def missing_sections(place: Path) -> list[int]:
    """Return the sections without tokens, up to the first from which on nothing is used."""
    plan, missing = Plan.read(place), list[int]()
    left = plan.limits
    for number in range(plan.count):
        if all(limit <= 0 for limit in left):
            break
        if (path := _folder(place, number) / SECTION).exists():
            left = [limit - used for limit, used in zip(left, read_json(path)["used"], strict=True)]
        else:
            missing.append(number)
    return missing


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
        with atomic_folder(folder) as made:
            _write_section(made, Plan.read(place), number, place)


def _folder(place: Path, number: int) -> Path:
    return place / f"{number:05d}"


def _pieces(plan: Plan, number: int, cache: Path) -> Iterator[Piece]:
    """Yield the pieces of a section, all of validation included."""
    data: DataConfig = from_plain("data", plan.data)
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


def _write_section(folder: Path, plan: Plan, number: int, place: Path) -> None:
    """Write the columns of a section."""
    tokenizer, limits = read_tokenizer(place), plan.limits
    used, table, errors = [0, 0], array("Q"), dict[int, str]()
    writers = {name: ShardWriter(folder, name, values) for name, values in _columns(tokenizer).items()}
    with writers[TOKENS], writers[PIECES]:
        for piece in _pieces(plan, number, place.parent):
            if used[piece.val] < limits[piece.val]:
                tokens, error = encode(piece.text, tokenizer)
                if error:  # raised by the join if it uses that part of the piece
                    errors[len(table) // 2] = error
                used[piece.val] += len(piece.text.encode()) if piece.val else len(tokens)
                flags = VAL * piece.val | STARTS * piece.starts | CUTS * tokenizer.cuts_runs(piece.text)
                table.extend((len(tokens), flags))
                writers[TOKENS].write(tokens)
            elif not plan.starts and used[not piece.val] >= limits[not piece.val]:
                break  # of a stream; a text is verified to its end
        writers[PIECES].write(np.array(table))
    columns = {name: [asdict(shard) for shard in writer.shards] for name, writer in writers.items()}
    write_json(folder / SECTION, {"columns": columns, "errors": errors, "used": used})


def _columns(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the columns of a section with the number of values that each may have."""
    return {TOKENS: tokenizer.vocab_size, PIECES: LARGEST}


# -------------------------------------------------------------------------------------- join


def _join(folder: Path, place: Path, request: Request) -> None:
    """Write the shards and the manifest from all sections in order."""
    start_over(folder)
    plan, tokenizer = Plan.read(place), read_tokenizer(place)
    train, val = part_writers(folder, request.data, tokenizer)
    with train.writer, val.writer:
        for number in range(plan.count):
            if train.full and val.full:
                break
            for flags, tokens, error in _read_section(_folder(place, number), tokenizer):
                part = val if flags & VAL else train
                if part is val:
                    _add_validation(val, flags, tokens, tokenizer, plan.limits[True])
                else:
                    train.add(bool(flags & STARTS), tokens, bool(flags & CUTS))
                if error and not part.full:
                    raise ValueError(error)
    write_tokenizer(folder, tokenizer)
    finish(folder, request, tokenizer, train, val)


def _add_validation(val: PartWriter, flags: int, tokens: np.ndarray, tokenizer: Tokenizer, limit: int) -> None:
    """Add a piece until the part has so many bytes; of the last piece its first bytes, as gptexp.data.split cuts it."""
    size, left, cuts_runs = int(tokenizer.token_bytes[tokens].sum()), limit - val.bytes, bool(flags & CUTS)
    if size > left:
        text = first_bytes(tokenizer.decode(tokens), left)
        tokens, cuts_runs = tokenizer.encode(text), tokenizer.cuts_runs(text)
    if len(tokens):
        val.add(bool(flags & STARTS), tokens, cuts_runs)
    val.full = val.full or size >= left


def _read_section(folder: Path, tokenizer: Tokenizer) -> Iterator[tuple[int, np.ndarray, str]]:
    """Yield flags, tokens and error of each piece. ValueError: the section is damaged."""
    found, stores = read_json(folder / SECTION), dict[str, TokenStore]()
    for name, values in _columns(tokenizer).items():
        stores[name] = TokenStore(folder, [Shard(**shard) for shard in found["columns"][name]], token_dtype(values))
        stores[name].verify()
    table, end = stores[PIECES][:].reshape(-1, 2).tolist(), 0
    for number, (length, flags) in enumerate(table):
        start, end = end, end + length
        yield flags, stores[TOKENS].read(start, end), found["errors"].get(str(number), "")
