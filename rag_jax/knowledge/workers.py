"""Several processes encode one build: each takes its share of the segments, and whoever dies is named."""

import contextlib
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

from rag_jax.errors import InputError
from rag_jax.knowledge import building
from rag_jax.knowledge.building import Plan
from rag_jax.knowledge.encoder import Encoder, Heard
from rag_jax.knowledge.reads import Reads

Load = Callable[[], tuple[Encoder, Reads | None]]


def encode_together(
    folder: Path, plan: Plan, load: Load, loaded: tuple[Encoder, Reads | None], processes: int, done: Heard
) -> None:
    """`building.encode` by this process, which has the tower `loaded`, and others, which `load` it themselves.

    Raises `InputError` for what one of them could not encode; what the others did is kept.
    """
    if processes < 1:
        raise InputError(f"{processes} processes cannot encode; give 1 or more")
    spawn = multiprocessing.get_context("spawn")  # a fork would share a half of XLA's threads
    others = {
        rank: spawn.Process(target=_share, args=(folder, plan, load, (rank, processes)), daemon=True)
        for rank in range(1, processes)
    }
    before = {name for name, _ in plan.segments if (folder / "vectors" / name).exists()}
    with _deaf_to_interrupts():
        for other in others.values():
            other.start()
    try:
        building.encode(folder, plan, *loaded, done, (0, processes))
        _wait(folder, plan, others, before, processes, done)
    finally:
        for other in others.values():
            other.terminate()


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started within ignore Ctrl-C, which the terminal sends to all: this one hears it and ends them."""
    if threading.current_thread() is not threading.main_thread():  # who alone may change what a signal does
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _share(folder: Path, plan: Plan, load: Load, share: tuple[int, int]) -> None:
    parent = multiprocessing.parent_process()

    def alone(count: int) -> None:
        if parent is not None and not parent.is_alive():
            raise SystemExit("the process that began this build is gone")

    try:
        building.encode(folder, plan, *load(), alone, share)
    except InputError as error:
        raise SystemExit(str(error)) from None  # told on the standard error; the first process counts what is missing


def _wait(
    folder: Path, plan: Plan, others: Mapping[int, BaseProcess], told: set[str], processes: int, done: Heard
) -> None:
    while True:
        running = any(other.is_alive() for other in others.values())
        for rank in others:
            for name, count in plan.segments[rank::processes]:
                if name not in told and (folder / "vectors" / name).exists():
                    told.add(name)
                    done(count)
        if not running:
            break
        time.sleep(0.2)
    if any(other.exitcode for other in others.values()):
        raise InputError(f"{folder}: a process that encoded with this one ended early; run the same command again")
