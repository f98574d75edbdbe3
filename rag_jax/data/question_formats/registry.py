"""The formats of question files, and the choice among them by the content of a file."""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from rag_jax.data import json_documents
from rag_jax.data.jsonl import read_jsonl
from rag_jax.data.question_formats import beir, squad
from rag_jax.data.question_formats.beir import BEIR
from rag_jax.data.question_formats.claims import CLAIMS
from rag_jax.data.question_formats.format import IDS, Format, Item, Row, any_of, objects
from rag_jax.data.question_formats.kilt import KILT
from rag_jax.data.question_formats.labelled import PROMPTS, TEXTS
from rag_jax.data.question_formats.plain import FLASHRAG, PLAIN
from rag_jax.data.question_formats.retrieved import ATLAS, DPR_OUTPUT, DPR_TRAINING
from rag_jax.data.question_formats.squad import SQUAD
from rag_jax.data.question_formats.triviaqa import TRIVIAQA
from rag_jax.errors import InputError

# In this order: the first that matches a row is its format.
FORMATS = (DPR_TRAINING, DPR_OUTPUT, SQUAD, FLASHRAG, ATLAS, TRIVIAQA, PLAIN, CLAIMS, KILT, BEIR, PROMPTS, TEXTS)

MAX_SHOWN = 60  # characters of an unknown file in the message


def open_rows(path: str | Path) -> tuple[Format, Iterator[Item]]:
    """The format of a question file and its rows; blank lines are skipped.

    Raises `InputError` for a file in none of the formats or without rows, and while the rows are read, for a malformed
    row and one of another format.
    """
    format, items = _open(path)
    first = next(items, None)
    if first is None:
        raise InputError(f'{path}: holds no questions; write one {{"question": …, "answers": […]}} on each line')
    items = chain([first], items)
    if format is not None:
        return format, items
    format = _format(first.row)
    if format is None:
        fields = json.dumps(", ".join(first.row)[:MAX_SHOWN], ensure_ascii=False)
        raise _unknown(first.location, f"its fields are {fields}")
    return format, _checked(format, items)


def _open(path: str | Path) -> tuple[Format | None, Iterator[Item]]:
    """The rows of a file, with the format where it is not that of the first row."""
    head = json_documents.read_head(path)
    if head.startswith(beir.HEADER):
        return BEIR, beir.questions(Path(path))
    if head.startswith("["):
        return None, _numbered(path, json_documents.read_items(path))
    if _is_document(head):
        document = json_documents.read_object(path)
        if "data" in document:
            return SQUAD, map(_with_id, squad.questions(path, document))
        rows = objects(document.get("Data"), "Data", str(path))
        return None, _numbered(path, enumerate(rows, start=1))
    if head and not head.startswith("{"):
        beginning = json.dumps(head.splitlines()[0][:MAX_SHOWN], ensure_ascii=False)
        raise _unknown(str(path), f"it begins with {beginning}")
    _refuse_folder(Path(path))
    return None, (Item(number, f"{path}:{number}", row) for number, row in read_jsonl(path))


def _is_document(head: str) -> bool:
    """Whether a file is a single object, as those of SQuAD and TriviaQA, and not one on each line."""
    try:
        row = json.loads(head.split("\n", 1)[0])
    except (ValueError, RecursionError):  # the object has more lines, or its line is longer than the head
        return head.startswith("{") and re.search(r'"[dD]ata"\s*:\s*\[', head) is not None
    return isinstance(row, dict) and _format(row) is None and any_of(row, ("data", "Data"))


def _checked(format: Format, items: Iterable[Item]) -> Iterator[Item]:
    for item in items:
        other = _format(item.row)
        if other is not None and other is not format:
            problem = f"a row of {other.name} in a file that begins with {format.name}"
            raise InputError(f"{item.location}: {problem}; give each format a file of its own")
        yield item


def _format(row: Row) -> Format | None:
    return next((format for format in FORMATS if format.matches(row)), None)


def _numbered(path: str | Path, rows: Iterable[tuple[int, Row]]) -> Iterator[Item]:
    return (_with_id(Item(number, f"{path}: item {number}", row)) for number, row in rows)


def _with_id(item: Item) -> Item:
    """An item of a document, located by its id too: it has no line to be found at."""
    id = next((item.row[name] for name in IDS if isinstance(item.row.get(name), str | int)), None)
    return item if id is None else item._replace(location=f"{item.location} (id {json.dumps(id)})")


def _unknown(location: str, found: str) -> InputError:
    names = ", ".join(format.name for format in FORMATS if format is not PLAIN)
    return InputError(
        f'{location}: in none of the formats of question files, {found}; write {{"question": …, "answers": […]}} '
        f"on each line, or use one of {names}"
    )


def _refuse_folder(path: Path) -> None:
    """Say what to name where the folder of a BEIR data set was named."""
    qrels = sorted(path.glob("qrels/*.tsv*"))
    if qrels:
        raise InputError(f"{path}: is a folder, not a file; name its relevance judgements, as {qrels[0]}")
