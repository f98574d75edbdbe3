"""Encoding one build in several processes, each with its share of the segments.

Every process holds the store's lock until it ends, so that no other writer interferes while one of them still writes.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import connection, reduction
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rag_jax.errors import InputError
from rag_jax.index import building, part_files
from rag_jax.index.encoder import ProgressCallback, TextEncoder
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.index.pending_build import PendingBuild

Load = Callable[[], tuple[TextEncoder, PassageTokenizer | None]]


class Lock:
    """The file descriptor of a store's lock; a process that it is passed to holds the lock too."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __reduce__(self) -> tuple[Callable, tuple[Any]]:
        return _unpickle_lock, (reduction.DupFd(self.handle),)


def encode_in_processes(
    folder: Path,
    plan: PendingBuild,
    load: Load,
    loaded: tuple[TextEncoder, PassageTokenizer | None],
    processes: int,
    on_progress: ProgressCallback,
    lock: Lock,
) -> None:
    """Run `building.encode` in this process, with the `loaded` tower, and in others, which `load` it themselves.

    Raises `InputError` if a process fails; segments that are complete are kept.
    """
    if processes < 1:
        raise InputError(f"{processes} processes cannot encode; give 1 or more")
    processes = min(processes, max(1, len(plan.segments)))  # others would have no segment
    spawn = multiprocessing.get_context("spawn")  # a fork would not copy XLA's threads
    others = {
        rank: spawn.Process(target=_encode_share, args=(folder, plan, load, (rank, processes), lock), daemon=True)
        for rank in range(1, processes)
    }
    before = {name for name, _ in plan.segments if part_files.is_part(folder / "vectors" / name)}
    with _ignore_interrupts():
        for other in others.values():
            other.start()
    try:
        building.encode(folder, plan, *loaded, on_progress, (0, processes))
        _wait(folder, plan, others, before, processes, on_progress)
    finally:
        for other in others.values():
            other.terminate()
        for other in others.values():
            other.join()


@contextlib.contextmanager
def _ignore_interrupts() -> Iterator[None]:
    """Make child processes ignore Ctrl-C, which the terminal sends to all; this process handles it and ends them."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set signal handlers
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _unpickle_lock(descriptor: Any) -> Lock:
    return Lock(descriptor.detach())


def _encode_share(folder: Path, plan: PendingBuild, load: Load, share: tuple[int, int], lock: Lock) -> None:
    del lock  # its descriptor stays open until this process ends
    threading.Thread(target=_exit_with_parent, args=[multiprocessing.parent_process()], daemon=True).start()
    try:
        building.encode(folder, plan, *load(), share=share)
    except InputError as error:
        raise SystemExit(str(error)) from None  # printed to standard error; the first process checks the exit codes


def _exit_with_parent(parent: Any) -> None:
    """End this process when its parent has ended."""
    connection.wait([parent.sentinel])
    os._exit(1)


def _wait(
    folder: Path,
    plan: PendingBuild,
    others: Mapping[int, BaseProcess],
    reported: set[str],
    processes: int,
    done: ProgressCallback,
) -> None:
    while True:
        running = any(other.is_alive() for other in others.values())
        for rank in others:
            for name, count in plan.segments[rank::processes]:
                if name not in reported and part_files.is_part(folder / "vectors" / name):
                    reported.add(name)
                    done(count)
        if not running:
            break
        time.sleep(0.2)
    if any(other.exitcode for other in others.values()):
        raise InputError(f"{folder}: a process that encoded with this one ended early; run the same command again")
