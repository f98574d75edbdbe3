"""Files of texts to be moderated: JSON lines with a text, and with a label for all of them or for none."""

from pathlib import Path
from typing import NamedTuple

from rag_jax.data.jsonl import UniqueIds, read_jsonl, validate_id, validate_text
from rag_jax.errors import InputError

TEXTS = ("text", "prompt")  # names of the text: here, in XSTest


class Texts(NamedTuple):
    """The texts of a file."""

    ids: list[str]
    texts: list[str]
    labels: list[str] | None  # None: the file has none


def read_texts(path: Path) -> Texts:
    """Read `{"id": …, "text": …, "label": …}` of each line; the id defaults to the number of the line.

    Raises `InputError` for a line without a text, for a duplicate id, and where only some texts have a label.
    """
    ids, texts, labels, seen = [], [], [], UniqueIds()
    for number, row in read_jsonl(path):
        location = f"{path}:{number}"
        name = next((name for name in TEXTS if name in row), TEXTS[0])
        ids.append(validate_id(row.get("id", number), "id", location))
        seen.add(ids[-1], location)
        texts.append(validate_text(row.get(name), name, location))
        if row.get("label") is not None:
            labels.append(validate_text(row["label"], "label", location))
        if len(labels) not in (0, len(ids)):
            raise InputError(f"{location}: some texts have a label, others none; label all of them or none")
    if not ids:
        raise InputError(f'{path}: holds no texts; write one {{"text": …}} on each line')
    return Texts(ids, texts, labels or None)
