"""JSON Lines: one object per line, `{"id"?, "title"?, "text"}`, or an article of KILT's knowledge source.

`id` may be called `_id` (as in BEIR) or `docid` (as in Tevatron); it defaults to the line number, counted from 1.
A document of BEIR may have a title alone, as many of TREC-COVID have.
"""

from collections.abc import Iterator
from pathlib import Path

from rag_jax.corpus.formats import unknown_format
from rag_jax.corpus.kilt import article, is_article
from rag_jax.corpus.passage import Passage, no_id, row_id, validate_passage
from rag_jax.data.bad_lines import OnBadLine
from rag_jax.data.jsonl import read_jsonl
from rag_jax.errors import InputError


def read_rows(path: Path, on_bad_line: OnBadLine, own_ids: bool = False) -> Iterator[tuple[str, Passage]]:
    """Yield every passage or article with its location, `FILE:LINE`; with `own_ids`, a row without an id is invalid."""
    for number, row in read_jsonl(path, on_bad_line):
        location = f"{path}:{number}"
        try:
            if is_article(row):
                passage = article(row, location)
            elif own_ids and row_id(row, None) is None:
                raise no_id(location)
            else:
                values, is_beir = (row_id(row, number), row.get("title"), row.get("text")), "_id" in row
                passage = validate_passage(*values, location, title_suffices=is_beir)
        except InputError as error:
            on_bad_line(error)
            continue
        yield location, passage


def read_json(path: Path, on_bad_line: OnBadLine, own_ids: bool = False) -> Iterator[tuple[str, Passage]]:
    """Read a `.json` file as JSON Lines. Raises `InputError` if its first non-blank line is not a JSON object."""
    try:
        next(read_jsonl(path), None)
    except InputError as error:
        raise unknown_format(path, "not one JSON object on each line") from error
    return read_rows(path, on_bad_line, own_ids)
