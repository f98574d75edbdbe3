"""JSON lines, row by row: whatever is wrong is named by its file and line.

JSON lines hold one object per line, in a file as `rag_jax.data.lines` reads it; blank lines are skipped, but counted.
Every fault is an `InputError` of the form `FILE:LINE: what; remedy`.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rag_jax.data.bad_lines import OnBadLine, raise_error
from rag_jax.data.lines import open_bytes
from rag_jax.data.lines import read_lines as read_lines
from rag_jax.data.unique_ids import UniqueIds as UniqueIds
from rag_jax.errors import InputError


def read_jsonl(path: str | Path, bad: OnBadLine = raise_error) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number from 1, object) for every line that is not blank; lines that hold no object go to `bad`."""
    for number, line in enumerate(read_lines(path, bad), start=1):
        if not line.strip():
            continue
        try:
            row = _parse(line, f"{path}:{number}")
        except InputError as error:
            bad(error)
            continue
        yield number, row


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one object per line; the file appears whole or not at all, and missing folders are made.

    Rows go to a file beside the target that takes its name at the end: an interrupted run leaves an old file as it was.
    """
    path = Path(path)
    side = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open_bytes(side, "wb", path.suffix) as file:
                file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
            os.replace(side, path)
        finally:
            side.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place") from error


def checked_text(value: object, name: str, place: str) -> str:
    """Returns `value` if it is a string with something to read in it; `place` is the `FILE:LINE` for the message."""
    if not isinstance(value, str):
        found = "is missing" if value is None else f"is {_json_type(value)}, not a string"
        raise InputError(f'{place}: "{name}" {found}; write "{name}" as a string in quotes')
    if not value.strip():
        raise InputError(f'{place}: "{name}" is empty; fill it in or remove the line')
    return checked_characters(value, name, place)


def checked_characters(value: str, name: str, place: str) -> str:
    """Returns `value` if it can be written as UTF-8 text: JSON's escapes can smuggle in what the bytes may not hold."""
    if "\0" in value:
        raise InputError(f'{place}: "{name}" holds a NUL character; remove it')
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(f'{place}: "{name}" holds half a surrogate pair; write the whole character') from error
    return value


def checked_id(value: object, name: str, place: str) -> str:
    """Returns an id as a string; files write it as a string or as a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        return checked_text(value, name, place)
    raise InputError(f'{place}: "{name}" is {_json_type(value)}; write an id as a string or a whole number')


def _parse(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line.rstrip())  # with its line end, the fault of a line cut short would be in the next line
    except json.JSONDecodeError as error:
        what = f"malformed JSON at column {error.colno} ({error.msg})"
        raise InputError(f"{place}: {what}; write one JSON object on each line") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of brackets
        raise InputError(f"{place}: JSON too large to be read; write one plain JSON object on each line") from error
    if not isinstance(row, dict):
        raise InputError(f"{place}: holds {_json_type(row)}, not an object; write one JSON object on each line")
    return row


def _json_type(value: object) -> str:
    names = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), json.dumps(value))  # true, false or null
