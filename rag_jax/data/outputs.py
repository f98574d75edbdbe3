"""Output files that the user names for a command. Existing files are never overwritten.

A command writes a new or empty file, or resumes its own unfinished one. Links, devices and folders are rejected, and so
are paths inside a knowledge store or a workdir, which the library manages. Links are not followed.
"""

import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from rag_jax.data import strict_json
from rag_jax.data.json_object import JsonObject
from rag_jax.errors import InputError

OWN_FOLDERS = (
    ("rag-jax.store",),
    ("manifest.json", "vectors"),
    ("config.json", "checkpoints"),
)  # entries that identify them
RESUME = "make room, then run the same command to resume"


def check_new(path: Path) -> None:
    """Raise `InputError` for a path that exists and is not an empty file, or that must not be written.

    A long command that writes its file at the end calls this at the beginning.
    """
    check_path(path)
    if _size(path):
        raise InputError(f"{path}: exists already; choose another name, or delete it: nothing is overwritten")


def check_new_folder(path: Path) -> None:
    """Raise `InputError` for a path that exists and is not an empty folder, or that must not be written."""
    if path.is_symlink() or (path.exists() and not (path.is_dir() and not any(path.iterdir()))):
        raise InputError(f"{path}: exists already; choose another place, nothing is overwritten")
    check_outside(path)


@contextmanager
def new_json(path: Path | None) -> Iterator[Callable[[object], None]]:
    """Yield a function that writes a JSON value to a new file, replacing its previous value; a no-op without a path.

    Raises `InputError` as `check_new`.
    """
    if path is None:
        yield lambda value: None
        return
    check_new(path)
    with _open_for_update(path) as file:

        def write(value: object) -> None:
            text = strict_json.dumps(value, indent=2).encode() + b"\n"
            _write(path, file, text, 0)
            os.ftruncate(file.fileno(), len(text))

        yield write


class ResumableLines:
    """JSON Lines of one command, each with an id, appended as they are produced; created by `resumable_lines`."""

    def __init__(self, path: Path, file: BinaryIO, fingerprint: str) -> None:
        self.path, self._file = path, file
        self._head = f'{{"fingerprint": "{fingerprint}"'.encode()
        self._positions, self._end = self._read()

    def __len__(self) -> int:
        return len(self._positions)

    def __contains__(self, id: str) -> bool:
        return id in self._positions

    def append(self, id: str, row: Mapping[str, Any]) -> None:
        """Append a line."""
        rest = strict_json.dumps({"id": id, **row}, ensure_ascii=False).encode().removeprefix(b"{")
        line = self._head + b", " + rest + b"\n"
        _write(self.path, self._file, line, self._end)
        self._positions[id] = self._end, len(line)
        self._end += len(line)

    def reorder(self, ids: Sequence[str]) -> None:
        """Rewrite the file with its lines in the order of `ids`, atomically."""
        positions = [self._positions[id] for id in ids]
        if positions == sorted(positions):
            return
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        with _disk_errors(self.path, RESUME), open(temporary, "xb") as file:
            try:
                for start, size in positions:
                    file.write(os.pread(self._file.fileno(), size, start))
                file.flush()
                os.fsync(file.fileno())
                if not os.path.samestat(os.lstat(self.path), os.fstat(self._file.fileno())):
                    raise InputError(f"{self.path}: was replaced while it was written; look into it")
                os.replace(temporary, self.path)
            finally:
                temporary.unlink(missing_ok=True)

    def _read(self) -> tuple[dict[str, tuple[int, int]], int]:
        """The (start, size) of each line by its id, and the end of the last; an incomplete last line is removed."""
        positions: dict[str, tuple[int, int]] = {}
        start = 0
        for line in iter(self._file.readline, b""):
            if not line.endswith(b"\n"):
                if not self._head.startswith(line[: len(self._head)]):
                    raise self._foreign(len(positions) + 1)
                os.ftruncate(self._file.fileno(), start)
                break
            try:
                if not line.startswith(self._head + b","):
                    raise ValueError
                id = JsonObject("", strict_json.loads(line)).read("id", str)
            except ValueError:
                raise self._foreign(len(positions) + 1) from None
            positions[id] = start, len(line)
            start += len(line)
        return positions, start

    def _foreign(self, number: int) -> InputError:
        what = "exists already, and is not from this command with these questions, options and model"
        return InputError(f"{self.path}:{number}: {what}; choose another name, or delete it: nothing is overwritten")


@contextmanager
def resumable_lines(path: Path, fingerprint: str) -> Iterator[ResumableLines]:
    """Open a new file, or one that the same command did not finish, for appending lines.

    The `fingerprint` of everything that the lines depend on is the first field of each line and identifies the command.
    Raises `InputError` for any other file, and if another process is writing it.
    """
    check_path(path)
    if path.suffix == ".gz":
        raise InputError(f"{path}: lines are appended as they come, which .gz does not allow; omit the suffix")
    with _open_for_update(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{path}: another process is writing it; wait until it is done") from None
        yield ResumableLines(path, file, fingerprint)


def check_path(path: Path) -> None:
    """Raise `InputError` for links, folders, devices, and for paths inside a store or a workdir."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        mode = stat.S_IFREG  # does not exist; opening it reports what is wrong, if anything
    if not stat.S_ISREG(mode):
        what = "a link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "no plain file"
        raise InputError(f"{path}: is {what}; name a new file")
    check_outside(path)


def check_outside(path: Path) -> None:
    """Raise `InputError` for a path inside a store or a workdir."""
    for folder in path.absolute().parents:
        if any(all((folder / name).exists() for name in names) for names in OWN_FOLDERS):
            raise InputError(f"{path}: is inside {folder}, a store or a workdir; choose a path outside")


def _size(path: Path) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


@contextmanager
def _open_for_update(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading and writing; a new one is deleted again if it stays empty, with its folders."""
    missing = [each for each in path.parents if not each.exists()]
    flags = os.O_RDWR | os.O_NOFOLLOW
    with _disk_errors(path, "choose another place"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle, created = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            handle, created = os.open(path, flags), False
    with open(handle, "rb") as file:
        try:
            yield file
        finally:
            if created and not os.fstat(handle).st_size:
                path.unlink(missing_ok=True)
                with suppress(OSError):  # not empty
                    for folder in missing:
                        folder.rmdir()


def _write(path: Path, file: BinaryIO, data: bytes, at: int) -> None:
    """Write all of `data` at an offset; if the disk is full, truncate the file there."""
    written = 0
    with _disk_errors(path, RESUME):
        try:
            while written < len(data):
                written += os.pwrite(file.fileno(), data[written:], at + written)
        except OSError:
            os.ftruncate(file.fileno(), at)
            raise


@contextmanager
def _disk_errors(path: Path, remedy: str) -> Iterator[None]:
    """Turn `OSError` into an `InputError`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); {remedy}") from None
