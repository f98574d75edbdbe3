"""Passages, the unit of retrieval: read from a corpus file, and cut from longer texts.

Two formats, told apart by the file's suffix, each also as `.gz`:

- `.tsv`, the format of DPR's `psgs_w100.tsv`: a header with the columns `id`, `text` and `title` (in any order), then
  one row per passage; tabs between columns, fields in `"` where they need it, and `"` inside such a field doubled;
- `.jsonl`: one object per line, `{"id"?, "title"?, "text"}`; `id` defaults to the line's number, counted from 1.

Files are read as a stream: all of Wikipedia passes through without being held.
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rag_jax.data.jsonl import UniqueIds, checked_characters, checked_id, checked_text, read_jsonl, read_lines
from rag_jax.errors import InputError

COLUMNS = ("id", "text", "title")


class Passage(NamedTuple):
    """A piece of text that is retrieved as a whole; the title, which may be empty, names the article it is from."""

    id: str
    title: str
    text: str


def read_passages(path: str | Path) -> Iterator[Passage]:
    """Yields the passages of a corpus file, in order; faults are found as the reading reaches them.

    Raises `InputError` (`FILE:LINE: what; remedy`, with the line where a row begins) for a file that cannot be read, an
    unknown suffix, a corpus without passages, a wrong header, a row with too few or too many columns or unbalanced
    quotes, malformed JSON, a text that is missing, empty or no string, bytes that are not UTF-8, NUL, and an id that
    occurs twice.
    """
    ids = UniqueIds()
    place = ""
    for place, passage in _reader(path):
        ids.add(passage.id, place)
        yield passage
    if not place:
        raise InputError(f"{path}: holds no passages; write one on each line")


def split_words(text: str, size: int = 100) -> Iterator[str]:
    """Yields disjoint chunks of at most `size` words, in order: `size` each but for the last, joined by single spaces.

    Words are what white space separates; this is how DPR and the RAG paper cut Wikipedia, with 100 words.
    """
    if size < 1:
        raise InputError(f"passages of {size} words cannot be cut; ask for 1 word at least")
    words = text.split()
    for start in range(0, len(words), size):
        yield " ".join(words[start : start + size])


def split_passages(passages: Iterable[Passage], size: int = 100) -> Iterator[Passage]:
    """Cuts every passage of more than `size` words; a shorter one is left as it is, to the last space.

    The pieces of passage `id` are called `id`, `id#2`, `id#3`, … and keep its title. Cutting twice is cutting once. A
    corpus that has a `7` to be cut must not have a `7#2` already.
    """
    for passage in passages:
        chunks = list(split_words(passage.text, size))
        if len(chunks) <= 1:
            yield passage
            continue
        for number, chunk in enumerate(chunks, start=1):
            yield passage._replace(id=passage.id if number == 1 else f"{passage.id}#{number}", text=chunk)


def _reader(path: str | Path) -> Iterator[tuple[str, Passage]]:
    """The reader for the suffix; it yields every passage with its place, `FILE:LINE`."""
    match Path(path).name.removesuffix(".gz").rpartition("."):
        case (_, ".", "tsv"):
            return _read_tsv(path)
        case (_, ".", "jsonl"):
            return _read_jsonl(path)
    raise InputError(f"{path}: unknown kind of corpus; name a .tsv or .jsonl file, or one of these as .gz")


def _read_jsonl(path: str | Path) -> Iterator[tuple[str, Passage]]:
    for number, row in read_jsonl(path):
        place = f"{path}:{number}"
        yield place, _passage({"id": number, "title": "", **row}, place)


def _read_tsv(path: str | Path) -> Iterator[tuple[str, Passage]]:
    rows = _tsv_rows(path)
    place, header = next(rows, (f"{path}:1", []))
    if sorted(header) != sorted(COLUMNS):
        raise InputError(f"{place}: not the header of a corpus; begin with the line id<TAB>text<TAB>title")
    for place, row in rows:
        if len(row) != len(header):
            what = f"{len(row)} column{'s' * (len(row) != 1)}, not {len(header)}"
            raise InputError(f"{place}: {what}; put one tab between columns, and fields with tabs in quotes")
        yield place, _passage(dict(zip(header, row, strict=True)), place)


def _tsv_rows(path: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Yields the rows that are not blank, each with the place of its first line."""
    # strict: a lenient reader would drop quotes that stand in the wrong place, or run two rows into one.
    reader = csv.reader(read_lines(path), delimiter="\t", strict=True)
    first_line = 1
    try:
        for row in reader:
            if row:
                yield f"{path}:{first_line}", row
            first_line = reader.line_num + 1
    except csv.Error as error:
        remedy = 'close every " and double those inside a field, or use .jsonl'
        raise InputError(f"{path}:{first_line}: malformed row ({error}); {remedy}") from error


def _passage(row: dict[str, Any], place: str) -> Passage:
    title = row["title"]
    if not isinstance(title, str):
        raise InputError(f'{place}: "title" is not a string; write it in quotes, or leave it out')
    return Passage(
        id=checked_id(row["id"], "id", place),
        title=checked_characters(title, "title", place),
        text=checked_text(row.get("text"), "text", place),
    )
