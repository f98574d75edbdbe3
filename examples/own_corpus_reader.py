"""A corpus reader of your own: CSV exports of a help desk. One line in a table makes `rag-jax index` read them.

python -m examples.own_corpus_reader
"""

import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rag_jax.corpus import READERS, read_corpus
from rag_jax.corpus.chunking import Chunker
from rag_jax.corpus.passage import Passage, validate_passage
from rag_jax.data.lines import read_lines
from rag_jax.errors import InputError


def read_tickets(path: Path, on_bad_line) -> Iterator[tuple[str, Passage]]:
    """Yields (FILE:LINE, passage). Errors of one line go to `on_bad_line`, which raises them or counts them."""
    rows = csv.DictReader(read_lines(path, on_bad_line))
    for row in rows:
        location = f"{path}:{rows.line_num}"
        try:
            passage = validate_passage(row.get("ticket"), row.get("subject"), row.get("answer"), location)
        except InputError as error:
            on_bad_line(error)
            continue
        yield location, passage


READERS[".csv"] = read_tickets

TICKETS = """ticket,subject,answer
17,Printer offline,Turn the printer off and on again and wait until the green light stays on.
18,No network,
19,Forgotten password,Open the portal and choose reset; a mail with a link arrives within a minute.
"""


def main() -> list[Passage]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tickets.csv"
        path.write_text(TICKETS, encoding="utf-8")
        errors: list[InputError] = []
        passages = list(read_corpus(path, Chunker(10), errors.append))
    for passage in passages:
        print(f"{passage.id}: {passage.title} / {passage.text}")
    print(f"{len(errors)} bad line: {str(errors[0]).rpartition('/')[2]}")
    return passages


if __name__ == "__main__":
    main()
