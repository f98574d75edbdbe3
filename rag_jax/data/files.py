"""Files and folders written whole: whoever reads one finds the old or the new one, never half, whatever interrupts.

What the disk refuses becomes an `InputError` of one line.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rag_jax.errors import InputError


def write_whole(path: Path, text: str) -> None:
    """Replace a file of a workdir, where one process writes: what another left when it was killed is taken away.

    Raises `InputError` for a full disk and a folder that cannot be written: what was there before is still there.
    """
    side = path.with_name(f".{path.name}.tmp")
    with writing(path):
        side.unlink(missing_ok=True)
    write_lines(path, [text], side)


def write_lines(path: Path, lines: Iterable[str], side: Path | None = None) -> None:
    """Replace a file as a whole: whoever reads it finds the old or the new one. Links are replaced, not followed.

    It is written to the `side` and renamed; nothing may be there (None: a name of this process's own).
    """
    side = side or path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path), side.open("x", encoding="utf-8") as file:
        try:
            file.writelines(lines)
            file.flush()
            sync(side)
            os.replace(side, path)
            sync(path.parent)
        finally:
            side.unlink(missing_ok=True)


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def aside(target: Path) -> Iterator[Path]:
    """A folder beside the target, which takes its name and place when all in it is on the disk."""
    side = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    side.mkdir(parents=True)
    try:
        yield side
        for file in side.iterdir():
            sync(file)
        sync(side)
        os.replace(side, target)
        sync(target.parent)
    finally:
        shutil.rmtree(side, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing(path: Path, needs: int = 0) -> Iterator[None]:
    """Turns what the disk refuses into one line; `needs` are the bytes in all, where they are known."""
    try:
        yield
    except OSError as error:
        wanted = f", about {gigabytes(needs)} are needed in all" if needs else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = gigabytes(shutil.disk_usage(_existing(path)).free)
            raise InputError(f"{path}: the disk is full, {free} are free{wanted}; make room and run it again") from None
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place") from None


def gigabytes(count: int) -> str:
    """Bytes for people to read."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.absolute().parents) if each.exists())
