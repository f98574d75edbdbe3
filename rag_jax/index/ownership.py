"""Which folder is a store's own, who may write there, and what may be deleted.

A store takes a folder that is new or empty, and marks it with the file `rag-jax.store` before it writes anything else
there; a folder that holds other things is refused. The marker is also the lock: whoever builds a store, changes it or
adds to it holds it, and there is one writer at a time. Only what has the names of a store's own parts, in a marked
folder, is ever deleted; links are not followed, and folders behind links are not written to.
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
LOCK_TIMEOUT = 1.0  # seconds that a writer waits for another before it is refused

SEGMENTS = re.compile(r"passages|vectors|tokens-[0-9a-f]{16}")  # the folders that hold a part of each segment
KINDS = ((SEGMENTS, r"\d{6,}"), (re.compile("removed"), r"\d{6,}"), (re.compile("engines"), r"(?:faiss|bm25)-\d{6,}"))
TEMPORARY = re.compile(
    r"\.(?:manifest|building)\.json\.\d+\.tmp"
)  # what a crash leaves of a file that was being replaced


class BusyError(InputError):
    """Another process is writing to a store."""


def check_available(folder: Path) -> None:
    """Raises `InputError` for a path that is neither a store's folder, nor an empty one, nor free."""
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
    """Make a new or empty folder a store's own. Raises as `check_place`, and where it cannot be written."""
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
    """`claim` and `locked`, for whoever builds a store. What an `InputError` leaves empty is given back."""
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
    """The one writer of a store; gives the descriptor that holds the lock, for processes that help to write.

    Another writer is waited for as long as somebody is `patient`. Raises `BusyError` after that, and `InputError` for a
    folder that is no store's own.
    """
    handle = _open_marker(folder)
    try:
        _lock(handle, folder, keep_waiting)
        _check_links(folder)
        yield handle
    finally:
        os.close(handle)


def check_writable(folder: Path) -> None:
    """Raises `InputError` for a folder that `locked` would refuse whoever else writes: before much is done in vain."""
    os.close(_open_marker(folder))
    _check_links(folder)


def is_writable(folder: Path) -> bool:
    """Whether it is a store's own, and can be written."""
    return (folder / MARKER).is_file() and os.access(folder, os.W_OK)


def delete_parts(folder: Path, kept: Callable[[str], bool]) -> None:
    """Delete the parts of a store that are not `kept`, by their paths in its folder, and what crashes left of others.

    Called under the lock. Whoever has an older version open keeps its maps.
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
                with suppress(OSError):  # what cannot be deleted is in nobody's way
                    part_files.delete_part(Path(part.path))
        with suppress(OSError):  # not empty
            os.rmdir(entry.path)


def next_free_number(folder: Path) -> int:
    """The first number above all that name a segment's parts, whoever made them."""
    kinds = (entry.path for entry in _entries(folder) if SEGMENTS.fullmatch(entry.name) and entry.is_dir())
    return max((1 + int(name) for kind in kinds for name in os.listdir(kind) if name.isdecimal()), default=0)


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda each: each.name)


def _part_pattern(kind: str) -> str | None:
    """The names of the parts in a folder of a store; None for a folder that is none of its own."""
    return next((shape for kinds, shape in KINDS if kinds.fullmatch(kind)), None)


def _open_marker(folder: Path) -> int:
    try:
        return os.open(folder / MARKER, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        told = f"has no {MARKER}, so nobody can tell that it is a store's own"
        raise InputError(f"{folder}: {told}; copy that too if it is a copy, or build one in another folder") from None
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
    raise InputError(f"{folder}: another process gave it up just now; run it again")


def _check_links(folder: Path) -> None:
    for entry in _entries(folder):
        if entry.is_symlink() and _part_pattern(entry.name):
            told = "a link, and a store writes only into folders of its own"
            raise InputError(f"{entry.path}: {told}; move what it names into its place, or link the whole store")


def _release_claim(folder: Path, missing: list[Path]) -> None:
    """Undo a claim where nothing was written since; `missing` are the folders that were made for it, inmost first."""
    if os.listdir(folder) == [MARKER]:
        (folder / MARKER).unlink()
        with suppress(OSError):  # somebody else is there
            for each in missing:
                each.rmdir()
