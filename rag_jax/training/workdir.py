"""The workdir: locked by one process at a time, and no foreign file in it is overwritten."""

import contextlib
import dataclasses
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from rag_jax.config.config import Config
from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.data import files, strict_json
from rag_jax.errors import InputError
from rag_jax.pipeline import workdir_tokenizers

CONFIG, LOCK = "config.json", ".rag_jax.lock"
WRITTEN = (
    *("results.json", "metrics.jsonl", "timings.jsonl", "not_finite.json", "wandb.txt", "tensorboard", "checkpoints"),
    workdir_tokenizers.FINGERPRINTS,
)
"""Files that a run writes after its config."""


def check_ownership(workdir: Path) -> None:
    """Reject a workdir with files that a run would overwrite but did not write.

    A run writes its config first, so a config shows that the other files are its own.
    """
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"{workdir}: is a file; choose another --workdir")
    for name in (CONFIG, *WRITTEN):
        if (workdir / name).is_symlink():
            there = os.readlink(workdir / name)
            raise InputError(f"{workdir / name}: is a link to {there}, which is not overwritten; {REMEDY}")
    if (workdir / CONFIG).exists():
        if not _is_config(workdir / CONFIG):
            raise InputError(f"{workdir / CONFIG}: is not the config of a run; {REMEDY}")
        return
    foreign = [name for name in WRITTEN if (workdir / name).exists()]
    if foreign:
        problem = f"holds {', '.join(foreign)}, but no {CONFIG} of a run that wrote it"
        raise InputError(f"{workdir}: {problem}; {REMEDY}")


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Lock a workdir until the context or the process ends.

    Creates the folder, and removes it afterwards if it is empty. Raises `InputError` if another process holds the lock,
    or the folder cannot be created or written.
    """
    created = [each for each in (workdir, *workdir.parents) if not each.exists()]
    try:
        handle = _acquire(workdir)
    except OSError as error:
        _remove_empty(created)
        raise InputError(f"{workdir}: cannot be written ({error.strerror}); choose another --workdir") from None
    try:
        with files.disk_errors(workdir / LOCK):
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps({"process": os.getpid(), "host": socket.gethostname()}).encode())
        yield
    finally:
        (workdir / LOCK).unlink(missing_ok=True)  # while still locked: a process that waits for it opens a new file
        os.close(handle)
        _remove_empty(created)


def _acquire(workdir: Path) -> int:
    """Open and lock the lock file; retry if it was unlinked in the meantime."""
    path = workdir / LOCK
    while True:
        workdir.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:  # another process has just removed the folder
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            problem = f"{_holder(handle)} trains in it"
            os.close(handle)
            raise InputError(f"{workdir}: {problem}; wait until it is done, or choose another --workdir") from None
        if _is_named(handle, path):
            return handle
        os.close(handle)


def _is_named(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(handle: int) -> str:
    """The process that holds the lock, read from the lock file."""
    try:
        found = strict_json.loads(os.pread(handle, 1_024, 0))
        return f"process {found['process']} on {found['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # it has not written its id yet


def _remove_empty(created: list[Path]) -> None:
    """Remove the created folders that are empty."""
    with contextlib.suppress(OSError):  # not empty
        for folder in created:
            folder.rmdir()


def _is_config(path: Path) -> bool:
    try:
        found = strict_json.loads(path.read_bytes(), paths=True)
    except (OSError, ValueError):
        return False
    sections = "data", "retriever", "optimizer", "steps"
    return isinstance(found, dict) and any(
        {*sections, own} <= set(found) & {field.name for field in dataclasses.fields(kind)}
        for kind, own in ((Config, "generator"), (ContrastiveConfig, "contrastive"))
    )


REMEDY = "choose another --workdir, or move it away"
