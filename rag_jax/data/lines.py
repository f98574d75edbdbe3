"""Text files, line by line, with errors located by file and line.

Files are UTF-8 (a leading byte-order mark is dropped), lines end in a line feed, and a name that ends in `.gz` is gzip.
Lines longer than `MAX_LINE_BYTES` are rejected, so that any file can be read in bounded memory.
"""

import gzip
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rag_jax.data.bad_lines import OnBadLine, raise_error
from rag_jax.errors import InputError

MAX_LINE_BYTES = 32 * 2**20  # including the line feed
READ_BYTES = 2**20  # read at once


def read_lines(path: str | Path, on_bad_line: OnBadLine = raise_error) -> Iterator[str]:
    """Yield the lines of a text file, line feeds included, so that the n-th item is line n.

    Lines with invalid UTF-8, a NUL byte, or more than `MAX_LINE_BYTES` bytes go to `on_bad_line`; a line that it skips
    is yielded as an empty string, which no other line is. Raises `InputError` for a path that is not a readable file
    and for a damaged `.gz`.
    """
    for number, raw in enumerate(_raw_lines(Path(path)), start=1):
        try:
            line = _decode(raw, path, number)
        except InputError as error:
            on_bad_line(error)
            line = ""
        yield line.removeprefix("\ufeff") if number == 1 else line


def open_bytes(path: Path, mode: str, suffix: str) -> IO[bytes]:
    """Open a file, compressed if `suffix`, that of its final name, is `.gz`."""
    return gzip.open(path, mode) if suffix == ".gz" else open(path, mode)  # type: ignore[return-value]


def check_file(path: Path) -> None:
    """Raise `InputError` for a folder, for a device or socket, which may have no end, and for one that is missing.

    A pipe may be read, once.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a file; name a file in it")
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path")
    if not path.is_fifo():
        check_plain(path)


def check_plain(path: Path) -> None:
    """Raise `InputError` for a device, a socket or a pipe: what is read more than once must be a plain file."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise InputError(f"{path}: is a device, a socket or a pipe; write what it holds to a file, and name that")


def _raw_lines(path: Path) -> Iterator[bytes | None]:
    """Yield every line, or None for one that is too long."""
    check_file(path)
    number = 0
    try:
        with open_bytes(path, "rb", path.suffix) as file:
            while raw := file.readline(READ_BYTES):
                number += 1
                yield raw if len(raw) < READ_BYTES else _long_line(raw, file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}:{number + 1}: damaged gzip ({error}); copy or download the file again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _long_line(raw: bytes, file: IO[bytes]) -> bytes | None:
    """The line that begins with `raw`, or None if it is too long; a long line is never held in memory."""
    pieces, size = [raw], len(raw)
    while not raw.endswith(b"\n") and (raw := file.readline(READ_BYTES)):
        size += len(raw)
        pieces.append(raw)
        if size > MAX_LINE_BYTES:
            pieces.clear()
    return b"".join(pieces) if size <= MAX_LINE_BYTES else None


def _decode(raw: bytes | None, path: str | Path, number: int) -> str:
    # Decode line by line, not through a text file's buffer, so that the line of an invalid byte is known.
    if raw is None:
        what = f"longer than {MAX_LINE_BYTES >> 20} MiB"
        raise InputError(f"{path}:{number}: {what}; cut the text into several, or end the lines with line feeds")
    if b"\0" in raw:
        raise InputError(f"{path}:{number}: holds a NUL byte; remove it, or save the file as UTF-8 text")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"byte {error.start + 1} is not UTF-8"
        raise InputError(f"{path}:{number}: {what}; save the file as UTF-8 text") from error
