"""Whose a workdir is, and who trains in it: one process at a time, and nothing of anybody else's is overwritten."""

import contextlib
import dataclasses
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from rag_jax.config.config import Config
from rag_jax.data import files
from rag_jax.errors import InputError

CONFIG, LOCK = "config.json", ".rag_jax.lock"
WRITTEN = ("results.json", "metrics.jsonl", "timings.jsonl", "not_finite.json", "wandb.txt", "checkpoints")
"""By a run that has written its config first."""


def check_ownership(workdir: Path) -> None:
    """Refuse a workdir with files that a run would overwrite and that no run has written.

    A run's config is the first that it writes there: it proves that the rest is a run's too.
    """
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"{workdir}: is a file; choose another --workdir")
    for name in (CONFIG, *WRITTEN):
        if (workdir / name).is_symlink():
            there = os.readlink(workdir / name)
            raise InputError(f"{workdir / name}: is a link to {there}, which is not overwritten; {OTHERWISE}")
    if (workdir / CONFIG).exists():
        if not _is_config(workdir / CONFIG):
            raise InputError(f"{workdir / CONFIG}: is not the config of a run; {OTHERWISE}")
        return
    foreign = [name for name in WRITTEN if (workdir / name).exists()]
    if foreign:
        told = f"holds {', '.join(foreign)}, but no {CONFIG} of a run that wrote it"
        raise InputError(f"{workdir}: {told}; {OTHERWISE}")


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Be the one that trains in a workdir, until the end of the context or of the process, however it ends.

    The folder is made, and where nothing was written into it it is gone again afterwards. Raises `InputError` where
    another process trains, and for a folder that cannot be made or written.
    """
    made = [each for each in (workdir, *workdir.parents) if not each.exists()]
    try:
        handle = _acquired(workdir)
    except OSError as error:
        _leave(made)
        raise InputError(f"{workdir}: cannot be written ({error.strerror}); choose another --workdir") from None
    try:
        with files.disk_errors(workdir / LOCK):
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps({"process": os.getpid(), "host": socket.gethostname()}).encode())
        yield
    finally:
        (workdir / LOCK).unlink(missing_ok=True)  # while it is still ours: whoever waits for its name takes the next
        os.close(handle)
        _leave(made)


def _acquired(workdir: Path) -> int:
    """The lock's file, open and locked; one whose name was taken away in the meantime is not the lock."""
    path = workdir / LOCK
    while True:
        workdir.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:  # whoever made the folder has just taken it away again
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            told = f"{_holder(handle)} trains in it"
            os.close(handle)
            raise InputError(f"{workdir}: {told}; wait until it is done, or choose another --workdir") from None
        if _is_named(handle, path):
            return handle
        os.close(handle)


def _is_named(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(handle: int) -> str:
    """Who holds the lock, as its file says."""
    try:
        found = json.loads(os.pread(handle, 1_024, 0))
        return f"process {found['process']} on {found['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # which has not written yet who it is


def _leave(made: list[Path]) -> None:
    """Take away folders that were made for nothing."""
    with contextlib.suppress(OSError):  # there is something in it
        for folder in made:
            folder.rmdir()


def _is_config(path: Path) -> bool:
    required = {"data", "retriever", "generator", "optimizer", "steps"}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and required <= set(found) & {field.name for field in dataclasses.fields(Config)}


OTHERWISE = "choose another --workdir, or move it away"
