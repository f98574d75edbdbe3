"""JSON Lines files, row by row, with errors located by file and line.

A file holds one object per line and is read by `rag_jax.data.lines`; blank lines are skipped, but counted. Every error
is an `InputError` of the form `FILE:LINE: what; remedy`.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rag_jax.data import strict_json
from rag_jax.data.bad_lines import OnBadLine, raise_error
from rag_jax.data.lines import open_bytes
from rag_jax.data.lines import read_lines as read_lines
from rag_jax.data.unique_ids import UniqueIds as UniqueIds
from rag_jax.errors import InputError


def read_jsonl(path: str | Path, on_bad_line: OnBadLine = raise_error) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) for every non-blank line; errors of a line go to `on_bad_line`."""
    return rows_of(read_lines(path, on_bad_line), path, on_bad_line)


def rows_of(
    lines: Iterable[str], path: str | Path, on_bad_line: OnBadLine = raise_error
) -> Iterator[tuple[int, dict[str, Any]]]:
    """`read_jsonl` for the lines of a file that has been read."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _parse(line, f"{path}:{number}")
        except InputError as error:
            on_bad_line(error)
            continue
        yield number, row


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one object per line, atomically; missing folders are created.

    Rows go to a temporary file that is renamed at the end: an interrupted run leaves an existing file unchanged.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open_bytes(temporary, "wb", path.suffix) as file:
                file.writelines(strict_json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place") from error


def validate_text(value: object, name: str, location: str) -> str:
    """Return `value` if it is a non-blank string; `location` is the `FILE:LINE` in the message."""
    if not isinstance(value, str):
        found = "is missing" if value is None else f"is {strict_json.type_name(value)}, not a string"
        raise InputError(f'{location}: "{name}" {found}; write "{name}" as a string in quotes')
    if not value.strip():
        raise InputError(f'{location}: "{name}" is empty; fill it in or remove the line')
    return validate_characters(value, name, location)


def validate_characters(value: str, name: str, location: str) -> str:
    """Return `value` if it can be written as UTF-8 text: JSON escapes can express characters that bytes cannot."""
    if "\0" in value:
        raise InputError(f'{location}: "{name}" holds a NUL character; remove it')
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(f'{location}: "{name}" holds half a surrogate pair; write the whole character') from error
    return value


def validate_id(value: object, name: str, location: str) -> str:
    """Return an id as a string; files write it as a string or as an integer."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        return validate_text(value, name, location)
    raise InputError(
        f'{location}: "{name}" is {strict_json.type_name(value)}; write an id as a string or a whole number'
    )


def _parse(line: str, location: str) -> dict[str, Any]:
    try:
        # With its newline, an error in a truncated line would be located in the next.
        row = strict_json.decode(line.rstrip())
    except json.JSONDecodeError as error:
        what = f"malformed JSON at column {error.colno} ({error.msg})"
        raise InputError(f"{location}: {what}; write one JSON object on each line") from error
    except strict_json.NotStrictError as error:
        raise InputError(f"{location}: malformed JSON ({error}); write one JSON object on each line") from error
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"{location}: JSON too large to be read; write one plain JSON object on each line") from error
    if not isinstance(row, dict):
        found = strict_json.type_name(row)
        raise InputError(f"{location}: holds {found}, not an object; write one JSON object on each line")
    return row
