"""DPR's `psgs_w100.tsv` and files in its format.

A header with the columns `id`, `text` and `title` (in any order), then one row per passage, separated by tabs; fields
may be quoted by `"`, with `"` inside them doubled.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from rag_jax.corpus.passage import Passage, validate_passage
from rag_jax.data.bad_lines import OnBadLine
from rag_jax.data.lines import MAX_LINE_BYTES, read_lines
from rag_jax.errors import InputError

COLUMNS = ("id", "text", "title")
csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))  # the default is 128 KiB
NUMBER = re.compile("[1-9][0-9]{,17}")


def read_tsv(path: Path, on_bad_line: OnBadLine) -> Iterator[tuple[str, Passage]]:
    """Yield every passage with its location, `FILE:LINE`, the line where its row begins."""
    rows = _rows(path, on_bad_line)
    location, header = next(rows, (f"{path}:1", []))
    if sorted(header) != sorted(COLUMNS):
        raise InputError(f"{location}: not the header of a corpus; begin with the line id<TAB>text<TAB>title")
    new, text, title = (header.index(name) for name in COLUMNS)
    for location, row in rows:
        try:
            if len(row) != len(header):
                what = f"{len(row)} column{'s' * (len(row) != 1)}, not {len(header)}"
                raise InputError(f"{location}: {what}; put one tab between columns, and fields with tabs in quotes")
            if row == header:  # of files that were put one behind the other
                raise InputError(f"{location}: the header again; delete the line")
            passage = Passage(row[new], row[title], row[text])
            if not (passage.id.strip() and passage.text.strip()):  # the lines are valid UTF-8 already
                validate_passage(passage.id, passage.title, passage.text, location)
        except InputError as error:
            on_bad_line(error)
            continue
        yield location, passage


class FaultRecorder:
    """Passes errors to another callback, and records that there was one."""

    def __init__(self, on_bad_line: OnBadLine) -> None:
        self.any = False
        self._bad = on_bad_line

    def __call__(self, error: InputError) -> None:
        self.any = True
        self._bad(error)


def check_sequence(rows: Iterator[tuple[str, Passage]], on_bad_line: FaultRecorder) -> Iterator[tuple[str, Passage]]:
    """Check that ids count 1, 2, 3, … in a file whose first id is "1", such as DPR's: a gap indicates lost rows.

    After a row with a wrong id, counting continues from its number; after a row that was invalid otherwise, which
    `on_bad_line` has recorded, from the number of the next row.
    """
    first = next(rows, None)
    if first is None:
        return
    yield first
    if first[1].id != "1":
        yield from rows
        return
    due, on_bad_line.any = 2, False
    for location, passage in rows:
        if passage.id == str(due):
            due, on_bad_line.any = due + 1, False
            yield location, passage
            continue
        number = int(passage.id) if NUMBER.fullmatch(passage.id) else 0  # one that is never due
        if on_bad_line.any and number > due:
            due, on_bad_line.any = number + 1, False
            yield location, passage
            continue
        what = f'the id "{passage.id}" where "{due}" is due, for the ids count from "1"'
        on_bad_line(
            InputError(f"{location}: {what}; copy or download the file again, or write a choice of rows as .jsonl")
        )
        due, on_bad_line.any = number + 1 if number else due, False


def _rows(path: Path, on_bad_line: OnBadLine) -> Iterator[tuple[str, list[str]]]:
    """Yield the non-blank rows, each with the location of its first line."""
    lines, name, first_line = _Lines(read_lines(path, on_bad_line)), str(path), 1
    # strict: a lenient reader would drop misplaced quotes, or join two rows.
    reader = csv.reader(lines, delimiter="\t", strict=True)
    while True:
        location = f"{name}:{first_line}"
        try:
            row = next(reader, None)
        except csv.Error as error:
            remedy = 'close every " and double those inside a field, or use .jsonl'
            on_bad_line(InputError(f"{location}: malformed row ({error}); {remedy}"))
            # An unclosed quote consumes the following rows, which may be valid: read them again.
            lines.repeat_all_but_one()
            first_line += 1
            continue
        if row is None:
            return
        if row and "" not in lines.taken:  # an empty string is an invalid line, which invalidates its row
            yield location, row
        first_line += len(lines.taken)
        lines.taken.clear()


class _Lines:
    """Records the lines that the CSV reader consumes for a row, so that they can be read again."""

    def __init__(self, lines: Iterator[str]) -> None:
        self.taken: list[str] = []
        self._lines = lines
        self._again: list[str] = []  # the next line is the last of these

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._lines)
        self.taken.append(line)
        return line

    def repeat_all_but_one(self) -> None:
        self._again += self.taken[:0:-1]
        self.taken.clear()
