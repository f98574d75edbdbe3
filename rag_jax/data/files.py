"""Atomic replacement of files and folders: a reader finds the old or the new version, never a part of one.

Errors of the file system become an `InputError` of one line.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rag_jax.errors import InputError


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in a workdir, which has a single writer; a temporary file left by a crash is deleted first.

    Raises `InputError` if the disk is full or the folder is not writable; the previous file is then unchanged.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with disk_errors(path):
        temporary.unlink(missing_ok=True)
    replace_file(path, [text], temporary)


def replace_file(path: Path, lines: Iterable[str], temporary: Path | None = None) -> None:
    """Replace a file atomically. A link is replaced, not followed.

    The lines are written to `temporary`, which must not exist (None: a name unique to this process), then renamed.
    """
    temporary = temporary or path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path), temporary.open("x", encoding="utf-8") as file:
        try:
            file.writelines(lines)
            file.flush()
            fsync(temporary)
            os.replace(temporary, path)
            fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def inside(folder: Path, name: str, source: Path) -> Path:
    """The path of a file below a folder, whose relative name stands in the file `source`.

    Raises `InputError` for a name that leads out of the folder.
    """
    parts = Path(name).parts
    if not parts or "\0" in name or Path(name).is_absolute() or ".." in parts:
        raise InputError(f"{source}: names {name!r}, which is no file below {folder}; copy or download it again")
    return folder / name


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target`; on success it is synced to disk and renamed to `target`."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.iterdir():
            fsync(file)
        fsync(temporary)
        os.replace(temporary, target)
        fsync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def fsync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(path: Path, needs: int = 0) -> Iterator[None]:
    """Turn `OSError` into an `InputError`; `needs` is the total size in bytes, if known."""
    try:
        yield
    except OSError as error:
        total = f", about {format_bytes(needs)} are needed in all" if needs else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = format_bytes(shutil.disk_usage(_nearest_existing(path)).free)
            raise InputError(f"{path}: the disk is full, {free} are free{total}; make room and run it again") from None
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place") from None


def format_bytes(count: int) -> str:
    """A number of bytes with its unit, as `1.5 GB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _nearest_existing(path: Path) -> Path:
    return next(each for each in (path, *path.absolute().parents) if each.exists())
