"""Text files line by line, JSON lines row by row: whatever is wrong is named by its file and line.

Files are UTF-8 (a leading byte-order mark is dropped), lines end in a line feed, and a name that ends in `.gz` is gzip.
JSON lines hold one object per line; blank lines are skipped, but counted. Every fault is an `InputError` of the form
`FILE:LINE: what; remedy`.
"""

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from rag_jax.errors import InputError


def read_lines(path: str | Path) -> Iterator[str]:
    """Yields the lines of a text file, line ends included, so the n-th item is line n.

    Raises `InputError` for a path that is no readable file, a damaged `.gz`, bytes that are not UTF-8 and NUL bytes.
    """
    path = Path(path)
    _require_file(path)
    number = 0
    try:
        with _open(path, "rb", path.suffix) as file:
            # Decoding line by line, not through a text file's buffer, is what makes the line of a bad byte known.
            for number, raw in enumerate(file, start=1):
                yield _decode(raw, f"{path}:{number}").removeprefix("\ufeff" if number == 1 else "")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}:{number + 1}: damaged gzip ({error}); copy or download the file again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number from 1, object) for every line that is not blank."""
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            yield number, _parse(line, f"{path}:{number}")


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one object per line; the file appears whole or not at all, and missing folders are made.

    Rows go to a file beside the target that takes its name at the end: an interrupted run leaves an old file as it was.
    """
    path = Path(path)
    side = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _open(side, "wb", path.suffix) as file:
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


class UniqueIds:
    """Refuses an id that came before, without remembering the 21 million of a Wikipedia that counts 1, 2, 3, …"""

    def __init__(self) -> None:
        self._counted = 0  # "1" … str(_counted) have all been seen
        self._others: set[str] = set()

    def add(self, new: str, place: str) -> None:
        """Raises `InputError` if `new` was added before."""
        if new in self._others or self._was_counted(new):
            raise InputError(f'{place}: the id "{new}" occurs twice; give every line an id of its own')
        if new == str(self._counted + 1):
            self._counted += 1
        else:
            self._others.add(new)

    def _was_counted(self, new: str) -> bool:
        # No longer than the counter: int() of a very long run of digits is slow, then an error.
        if not (new.isascii() and new.isdecimal() and len(new) <= len(str(self._counted))):
            return False
        return new[0] != "0" and int(new) <= self._counted


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a file; name a file in it")
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path")


def _open(path: Path, mode: str, suffix: str) -> IO[bytes]:
    # The suffix comes apart from the path because the file that is written beside the target has another name.
    return gzip.open(path, mode) if suffix == ".gz" else open(path, mode)  # type: ignore[return-value]


def _decode(raw: bytes, place: str) -> str:
    if b"\0" in raw:
        raise InputError(f"{place}: holds a NUL byte; remove it, or save the file as UTF-8 text")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: byte {error.start + 1} is not UTF-8; save the file as UTF-8 text") from error


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
