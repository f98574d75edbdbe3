"""Ownership of a store's folder: claiming it, locking it, and deleting the store's parts in it.

A store claims a new or empty folder by writing the marker file `rag-jax.store` before anything else; a folder with
other contents is rejected. The marker is also the lock of the store's single writer. Only entries named like a store's
parts, in a marked folder, are ever deleted; links are not followed, and linked folders are not written to.
"""

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rag_jax.data import files
from rag_jax.errors import InputError
from rag_jax.index import part_files

MARKER = "rag-jax.store"
TEXT = b"A knowledge store of rag_jax: it writes and deletes parts of its own here, and leaves other files alone.\n"
LOCK_TIMEOUT = 1.0  # seconds

SEGMENTS = re.compile(r"passages|vectors|tokens-[0-9a-f]{16}")  # folders with a part for each segment
KINDS = ((SEGMENTS, r"\d{6,}"), (re.compile("removed"), r"\d{6,}"), (re.compile("engines"), r"(?:faiss|bm25)-\d{6,}"))
TEMPORARY = re.compile(r"\.(?:manifest|building)\.json\.\d+\.tmp")  # files left by a crash


class BusyError(InputError):
    """Another process holds the lock of a store."""


def check_available(folder: Path) -> None:
    """Raise `InputError` for a path that exists and is neither a store nor an empty folder."""
    if not os.path.lexists(folder):
        return
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        raise InputError(f"{folder}: a link to nothing; make the folder that it names, or name another") from None
    except NotADirectoryError:
        raise InputError(f"{folder}: not a folder; name another place for the store") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); name another place for the store") from None
    if names and MARKER not in names:
        raise InputError(f"{folder}: not a knowledge store, and holds {names[0]}; name a new folder or an empty one")


def claim(folder: Path) -> None:
    """Claim a new or empty folder for a store. Raises as `check_available`, and if it is not writable."""
    check_available(folder)
    with files.disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / MARKER, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            if not os.fstat(handle).st_size:
                os.write(handle, TEXT)
        finally:
            os.close(handle)
        files.fsync(folder)


@contextmanager
def claim_and_lock(folder: Path) -> Iterator[int]:
    """`claim` and `lock` a folder for building; after an `InputError`, a folder that is still empty is released."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    claim(folder)
    with lock(folder) as handle:
        try:
            yield handle
        except InputError:
            _release_claim(folder, missing)
            raise


@contextmanager
def lock(folder: Path, keep_waiting: Callable[[], bool] = lambda: False) -> Iterator[int]:
    """Lock a store for writing; yields the file descriptor of the lock, which helper processes can inherit.

    Waits for another writer for `LOCK_TIMEOUT` seconds, and then while `keep_waiting()` is true. Raises `BusyError`
    after that, and `InputError` for a folder that is not a store's.
    """
    handle = _open_marker(folder)
    try:
        _lock(handle, folder, keep_waiting)
        _check_links(folder)
        yield handle
    finally:
        os.close(handle)


def check_writable(folder: Path) -> None:
    """Raise `InputError` for a folder that `lock` would reject; called before long computations."""
    os.close(_open_marker(folder))
    _check_links(folder)


def is_writable(folder: Path) -> bool:
    """Whether a folder is a store's, and `lock` would take it."""
    try:
        check_writable(folder)
    except InputError:
        return False
    return os.access(folder, os.W_OK)


def delete_parts(folder: Path, kept: Callable[[str], bool]) -> None:
    """Delete the parts of a store whose relative paths are not `kept`, and temporary files left by crashes.

    Requires the lock. Processes that have an older version open keep its memory maps.
    """
    for entry in _entries(folder):
        if TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            Path(entry.path).unlink()
        shape = _part_pattern(entry.name)
        if shape is None or not entry.is_dir(follow_symlinks=False):
            continue
        for part in _entries(entry.path):
            own = re.fullmatch(rf"{shape}|\.{shape}\.\d+\.tmp", part.name) and part.is_dir(follow_symlinks=False)
            if own and not kept(f"{entry.name}/{part.name}"):
                with suppress(OSError):  # a part that cannot be deleted does no harm
                    part_files.delete_part(Path(part.path))
        with suppress(OSError):  # not empty
            os.rmdir(entry.path)


def is_part_name(part: str) -> bool:
    """Whether a relative path is that of a store's part, which lies in the store's folder."""
    kind, _, name = part.partition("/")
    pattern = _part_pattern(kind)
    return pattern is not None and re.fullmatch(pattern, name) is not None


def next_free_number(folder: Path) -> int:
    """The first number above those of all segment parts in the folder, referenced or not."""
    kinds = (entry.path for entry in _entries(folder) if SEGMENTS.fullmatch(entry.name) and entry.is_dir())
    return max((1 + int(name) for kind in kinds for name in os.listdir(kind) if name.isdecimal()), default=0)


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda each: each.name)


def _part_pattern(kind: str) -> str | None:
    """The pattern of part names in a store's subfolder; None for a folder that is not the store's."""
    return next((shape for kinds, shape in KINDS if kinds.fullmatch(kind)), None)


def _open_marker(folder: Path) -> int:
    try:
        return os.open(folder / MARKER, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        what = f"has no {MARKER}, which marks the folder of a store"
        raise InputError(f"{folder}: {what}; copy that too if it is a copy, or build one in another folder") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another place") from None


def _lock(handle: int, folder: Path, patient: Callable[[], bool]) -> None:
    until = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            if time.monotonic() > until and not patient():
                raise BusyError(f"{folder}: another process is writing to it; wait until it is done") from None
            time.sleep(0.02)
    with suppress(OSError):
        if os.path.samestat(os.fstat(handle), os.stat(folder / MARKER)):
            return
    raise InputError(f"{folder}: another process just released it; run it again")


def _check_links(folder: Path) -> None:
    for entry in _entries(folder):
        if entry.is_symlink() and _part_pattern(entry.name):
            what = "a link, and a store does not write into linked folders"
            raise InputError(
                f"{entry.path}: {what}; replace it by the folder that it links to, or link the whole store"
            )


def _release_claim(folder: Path, missing: list[Path]) -> None:
    """Undo a claim if nothing was written since; `missing` are the folders created for it, innermost first."""
    if os.listdir(folder) == [MARKER]:
        (folder / MARKER).unlink()
        with suppress(OSError):  # not empty
            for each in missing:
                each.rmdir()
