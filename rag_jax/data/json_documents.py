"""JSON documents: a list of objects, read one by one, or a single object, read whole.

Files are UTF-8 (a leading byte-order mark is dropped), and a name that ends in `.gz` is gzip. An item of a list may be
as long as a line of JSON Lines, and an object as long as `MAX_OBJECT_BYTES`, so that any file can be read in bounded
memory. Every error is an `InputError` of one line, which names the item, counted from 1.
"""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from rag_jax.data import strict_json
from rag_jax.data.lines import MAX_LINE_BYTES, check_file, open_bytes
from rag_jax.errors import InputError

MAX_OBJECT_BYTES = 2**30
CHUNK_BYTES = 2**20  # read at once
COPY_AGAIN = "copy or download the file again"

_WHITE_SPACE = re.compile(r"[ \t\r\n]*")


def read_head(path: str | Path) -> str:
    """The beginning of a text file, about `CHUNK_BYTES` of it, without leading white space, to see what is in it.

    It is "" for a file without text, for a missing or damaged one, whose reader reports what is wrong, and for a pipe,
    which can be read only once.
    """
    if not Path(path).is_file():
        return ""
    try:
        return next((head for chunk in _chunks(Path(path), errors="replace") if (head := chunk.lstrip())), "")
    except InputError:
        return ""


def read_items(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number from 1, object) for every item of a list of objects, which is never held as a whole."""
    text = _Text(Path(path))
    text.take("[", f"{path}: is not a list; write the objects as one")
    if text.peek() != "]":
        for number in count(1):
            yield number, text.take_object(f"{path}: item {number}")
            if text.peek() != ",":
                break
            text.take(",")
    text.take("]", f"{path}: malformed JSON after the last item, the list does not end; {COPY_AGAIN}")
    if text.peek():
        raise InputError(f"{path}: malformed JSON, text follows the list; write one list in a file")


def read_object(path: str | Path) -> dict[str, Any]:
    """Read a file that holds a single object."""
    text = "".join(_chunks(Path(path), MAX_OBJECT_BYTES))
    try:
        found = strict_json.decode(text)
    except json.JSONDecodeError as error:
        what = f"malformed JSON at line {error.lineno}, column {error.colno} ({error.msg})"
        raise InputError(f"{path}: {what}; {COPY_AGAIN}") from error
    except strict_json.NotStrictError as error:
        raise InputError(f"{path}: malformed JSON ({error}); {COPY_AGAIN}") from error
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"{path}: JSON too large to be read; write plain JSON") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: is not a JSON object; write the document as one")
    return found


class _Text:
    """The text of a file from a position on, of which only the item there is held."""

    def __init__(self, path: Path) -> None:
        self._chunks = _chunks(path)
        self._text, self._at = "", 0

    def peek(self) -> str:
        """The next character that is not white space; "" at the end of the file."""
        while True:
            space = _WHITE_SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_more():
                return ""

    def take(self, character: str, error: str = "") -> None:
        """Step over the next character. Raises `InputError` with this text if it is another one."""
        if self.peek() != character:
            raise InputError(error)
        self._at += 1

    def take_object(self, location: str) -> dict[str, Any]:
        """Step over the next item. An object that is cut off is tried again with more text."""
        if self.peek() != "{":
            raise InputError(f"{location}: is not a JSON object; write a list of objects")
        while True:
            try:
                found, self._at = strict_json.DECODER.raw_decode(self._text, self._at)
                return found
            except json.JSONDecodeError as error:
                is_long = len(self._text) - self._at > MAX_LINE_BYTES
                if is_long or not self._read_more():
                    what = f"malformed JSON{f', or longer than {MAX_LINE_BYTES >> 20} MiB' if is_long else ''}"
                    raise InputError(f"{location}: {what} ({error.msg}); {COPY_AGAIN}") from error
            except strict_json.NotStrictError as error:
                raise InputError(f"{location}: malformed JSON ({error}); {COPY_AGAIN}") from error
            except (ValueError, RecursionError) as error:
                raise InputError(f"{location}: JSON too large to be read; write plain JSON objects") from error

    def _read_more(self) -> bool:
        """Read at least as much as is held, so that the attempts at a long item take linear time; False at the end."""
        pieces = [self._text[self._at :]]
        wanted = max(len(pieces[0]), 1)
        for chunk in self._chunks:
            pieces.append(chunk)
            wanted -= len(chunk)
            if wanted <= 0:
                break
        self._text, self._at = "".join(pieces), 0
        return len(pieces) > 1


def _chunks(path: Path, limit: int | None = None, errors: str = "strict") -> Iterator[str]:
    """Yield the text of a file. Raises `InputError` for a file that cannot be read or has more than `limit` bytes."""
    check_file(path)
    decoder, size = codecs.getincrementaldecoder("utf-8-sig")(errors), 0
    try:
        with open_bytes(path, "rb", path.suffix) as file:
            while raw := file.read(CHUNK_BYTES):
                size += len(raw)
                if limit is not None and size > limit:
                    remedy = "write the questions as JSON lines, one object on each line"
                    raise InputError(f"{path}: a JSON object longer than {limit >> 20} MiB; {remedy}")
                yield decoder.decode(raw)
            yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        byte = size - len(error.object) + error.start + 1
        raise InputError(f"{path}: byte {byte} is not UTF-8; save the file as UTF-8 text") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged gzip ({error}); {COPY_AGAIN}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
