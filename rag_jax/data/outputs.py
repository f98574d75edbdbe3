"""Files that the user names for a command to write. One rule: nothing that is there is overwritten.

A command writes a file that is new, or empty, or its own unfinished one. Links, devices and folders are refused, and so
are places within a knowledge store or a workdir, whose contents are the library's to judge. No link is followed.
"""

import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from rag_jax.errors import InputError

OURS = (("rag-jax.store",), ("manifest.json", "vectors"), ("config.json", "checkpoints"))  # what such folders hold
RESUME = "make room, then run the same command to resume"


def check_new(path: Path) -> None:
    """Raises `InputError` for a place at which something is, other than an empty file, or that is not to be written to.

    For files that are written at the end of a long command, so that it is refused at the beginning.
    """
    check_place(path)
    if _size(path):
        raise InputError(f"{path}: is there already; choose another name, or delete it: nothing is overwritten")


def check_new_folder(path: Path) -> None:
    """`check_new` for a folder: nothing may be there but an empty one."""
    if path.is_symlink() or (path.exists() and not (path.is_dir() and not any(path.iterdir()))):
        raise InputError(f"{path}: is there already; choose another place, nothing is overwritten")
    _check_outside(path)


@contextmanager
def new_json(path: Path | None) -> Iterator[Callable[[object], None]]:
    """A new file for one JSON value: the function writes it, in place of what it wrote before; without a path, nowhere.

    Raises `InputError` as `check_new` does.
    """
    if path is None:
        yield lambda value: None
        return
    check_new(path)
    with _opened(path) as file:

        def write(value: object) -> None:
            text = json.dumps(value, indent=2).encode() + b"\n"
            _write(path, file, text, 0)
            os.ftruncate(file.fileno(), len(text))

        yield write


class Lines:
    """JSON lines of one command, each with an id, appended as they come; begun by `resumable_lines`."""

    def __init__(self, path: Path, file: BinaryIO, fingerprint: str) -> None:
        self.path, self._file = path, file
        self._head = f'{{"fingerprint": "{fingerprint}"'.encode()
        self._places, self._end = self._read()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, id: str) -> bool:
        return id in self._places

    def append(self, id: str, row: Mapping[str, Any]) -> None:
        """Write a line."""
        rest = json.dumps({"id": id, **row}, ensure_ascii=False).encode().removeprefix(b"{")
        line = self._head + b", " + rest + b"\n"
        _write(self.path, self._file, line, self._end)
        self._places[id] = self._end, len(line)
        self._end += len(line)

    def arrange(self, ids: Sequence[str]) -> None:
        """Put all lines into the order of `ids`, at once: they came in an order of their own."""
        places = [self._places[id] for id in ids]
        if places == sorted(places):
            return
        side = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        with _told(self.path, RESUME), open(side, "xb") as file:
            try:
                for start, size in places:
                    file.write(os.pread(self._file.fileno(), size, start))
                file.flush()
                os.fsync(file.fileno())
                if not os.path.samestat(os.lstat(self.path), os.fstat(self._file.fileno())):
                    raise InputError(f"{self.path}: was replaced while it was written; look into it")
                os.replace(side, self.path)
            finally:
                side.unlink(missing_ok=True)

    def _read(self) -> tuple[dict[str, tuple[int, int]], int]:
        """Where each line is, by its id, and where they end; a last one that was not written whole is taken away."""
        places: dict[str, tuple[int, int]] = {}
        start = 0
        for line in iter(self._file.readline, b""):
            if not line.endswith(b"\n"):
                if not self._head.startswith(line[: len(self._head)]):
                    raise self._foreign(len(places) + 1)
                os.ftruncate(self._file.fileno(), start)
                break
            try:
                if not line.startswith(self._head + b","):
                    raise ValueError
                id = json.loads(line)["id"]
            except (ValueError, KeyError):
                raise self._foreign(len(places) + 1) from None
            places[id] = start, len(line)
            start += len(line)
        return places, start

    def _foreign(self, number: int) -> InputError:
        what = "is there already, and not from this command with these questions, options and model"
        return InputError(f"{self.path}:{number}: {what}; choose another name, or delete it: nothing is overwritten")


@contextmanager
def resumable_lines(path: Path, fingerprint: str) -> Iterator[Lines]:
    """Lines to append to: a new file, or one that the same command began and did not finish.

    The `fingerprint`, of everything that the lines depend on, is the first field of each: by it a file is known for the
    same command's. Raises `InputError` for any other file, and where another process is writing it.
    """
    check_place(path)
    if path.suffix == ".gz":
        raise InputError(f"{path}: lines are appended as they come, which .gz does not take; leave the suffix")
    with _opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{path}: another process is writing it; wait until it is done") from None
        yield Lines(path, file, fingerprint)


def check_place(path: Path) -> None:
    """Raises `InputError` for links, folders, devices, and for places within a store or a workdir."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        mode = stat.S_IFREG  # nothing there: opening it says what is wrong, if anything is
    if not stat.S_ISREG(mode):
        what = "a link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "no plain file"
        raise InputError(f"{path}: is {what}; name a new file")
    _check_outside(path)


def _check_outside(path: Path) -> None:
    """Raises `InputError` for a place within a store or a workdir."""
    for folder in path.absolute().parents:
        if any(all((folder / name).exists() for name in names) for names in OURS):
            raise InputError(f"{path}: is within {folder}, a store or a workdir; name a place outside")


def _size(path: Path) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A plain file for reading and writing, made where it is missing, and then deleted again if it stays empty."""
    flags = os.O_RDWR | os.O_NOFOLLOW
    with _told(path, "choose another place"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle, is_made = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            handle, is_made = os.open(path, flags), False
    with open(handle, "rb") as file:
        try:
            yield file
        finally:
            if is_made and not os.fstat(handle).st_size:
                path.unlink(missing_ok=True)


def _write(path: Path, file: BinaryIO, data: bytes, at: int) -> None:
    """Write all of `data`; where the disk does not take it, the file ends where it would have begun."""
    written = 0
    with _told(path, RESUME):
        try:
            while written < len(data):
                written += os.pwrite(file.fileno(), data[written:], at + written)
        except OSError:
            os.ftruncate(file.fileno(), at)
            raise


@contextmanager
def _told(path: Path, remedy: str) -> Iterator[None]:
    """Turns what the disk refuses into one line."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); {remedy}") from None
