"""Commands in forked processes: everything is imported before the fork, and no device is touched before it."""

import atexit
import contextlib
import os
import resource
import select
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from faults.case import Case, Ended, tree


class Child(NamedTuple):
    """A process, and the pipes of its output: files could not be written where the command's may not grow."""

    id: int
    out: int
    err: int


class Finished(NamedTuple):
    """How a process ended, and the most memory that it needed, in MB."""

    code: int | None  # None: by a signal
    signal: int | None
    peak: float
    out: str
    err: str


def run(case: Case, ground: Path, folder: Path) -> Ended:
    """Run a command in a copy of the ground, which is removed afterwards."""
    sandbox = folder / "here"
    folder.mkdir()
    os.chmod(folder, 0o777)
    try:
        shutil.copytree(ground, sandbox, symlinks=True)
        os.chmod(sandbox, 0o777)
        if case.spoil is not None:
            case.spoil(sandbox)
        before, began = tree(sandbox), time.perf_counter()
        code, number, peak, out, err = finished(fork(lambda: _command(case, sandbox)), case.seconds)
        seconds = time.perf_counter() - began
        return Ended(code, number, seconds, peak - _resident(), out, err, before, tree(sandbox))
    finally:
        _remove(folder)


def fork(act: Callable[[], object]) -> Child:
    """A process that does this, and ends as Python does."""
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = os.pipe(), os.pipe()
    child = os.fork()
    if child:
        os.close(out[1])
        os.close(err[1])
        return Child(child, out[0], err[0])
    code = 70
    try:
        os.setsid()
        for source, descriptor in ((os.open(os.devnull, os.O_RDONLY), 0), (out[1], 1), (err[1], 2)):
            os.dup2(source, descriptor)
        code = _interpreted(act)
    finally:
        os._exit(code)


def finished(child: Child, seconds: float) -> Finished:
    """Wait for a process, which is killed with those that it started when time is up."""
    said: dict[int, list[bytes]] = {child.out: [], child.err: []}
    handle, until = os.pidfd_open(child.id), time.monotonic() + seconds
    while True:
        ready = select.select([handle, *said], [], [], max(0, until - time.monotonic()))[0]
        for pipe in said:
            if pipe in ready:
                said[pipe].append(os.read(pipe, 1 << 16))
        if not ready:
            _kill(child.id)
        if handle in ready:
            break
    _, status, used = os.wait4(child.id, 0)
    _kill(child.id)  # what it started
    for pipe in said:
        os.set_blocking(pipe, False)
        with contextlib.suppress(BlockingIOError):
            while rest := os.read(pipe, 1 << 16):
                said[pipe].append(rest)
        os.close(pipe)
    os.close(handle)
    texts = (b"".join(said[pipe]).decode(errors="backslashreplace") for pipe in (child.out, child.err))
    is_signal = os.WIFSIGNALED(status)
    code, number = (None, os.WTERMSIG(status)) if is_signal else (os.WEXITSTATUS(status), None)
    return Finished(code, number, used.ru_maxrss / 1024, *texts)


def _command(case: Case, sandbox: Path) -> None:
    from rag_jax.cli import main

    os.chdir(sandbox)
    sys.argv = ["rag-jax", *case.argv]
    if case.inside is not None:
        case.inside()
    main(case.argv)


def _interpreted(act: Callable[[], object]) -> int:
    """The exit code that the interpreter would end with, after it has printed what it would print."""
    code: object = 0
    try:
        act()
    except SystemExit as stopped:
        code = stopped.code
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        code = 120
    return code if isinstance(code, int) else 0 if code is None else 1


def _resident() -> float:
    """MB of this process, which are also the child's when it begins."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _remove(folder: Path) -> None:
    """Remove a folder, with folders in it that may not be written."""
    for place, folders, _ in os.walk(folder):
        for name in folders:
            if not os.path.islink(os.path.join(place, name)):
                os.chmod(os.path.join(place, name), 0o700)
    shutil.rmtree(folder)
