"""Commands in forked processes: everything is imported before the fork, and no device is touched before it."""

import atexit
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

from faults.case import Case, Ended, tree


def run(case: Case, ground: Path, folder: Path) -> Ended:
    """Run a command in a copy of the ground, which is removed afterwards."""
    sandbox, out, err = folder / "here", folder / "out", folder / "err"
    folder.mkdir()
    os.chmod(folder, 0o777)
    try:
        shutil.copytree(ground, sandbox, symlinks=True)
        os.chmod(sandbox, 0o777)
        if case.spoil is not None:
            case.spoil(sandbox)
        before, began = tree(sandbox), time.perf_counter()
        child = fork(lambda: _command(case, sandbox), out, err)
        code, number, peak = ended(child, case.seconds)
        seconds = time.perf_counter() - began
        said = [path.read_text(encoding="utf-8", errors="backslashreplace") for path in (out, err)]
        return Ended(code, number, seconds, peak - _resident(), *said, before, tree(sandbox))
    finally:
        _remove(folder)


def fork(act: Callable[[], object], out: Path, err: Path) -> int:
    """The id of a process that does this with its output in files, and ends as Python does."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        for path, descriptor in ((Path(os.devnull), 0), (out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), descriptor)
        code = _interpreted(act)
    finally:
        os._exit(code)


def ended(child: int, seconds: float) -> tuple[int | None, int | None, float]:
    """Exit code, signal and most memory (MB) of a process, which is killed with its own processes when time is up."""
    handle = os.pidfd_open(child)
    in_time = select.select([handle], [], [], seconds)[0]
    os.close(handle)
    if not in_time:
        _kill(child)
    _, status, used = os.wait4(child, 0)
    _kill(child)  # what it started
    if os.WIFSIGNALED(status):
        return None, os.WTERMSIG(status), used.ru_maxrss / 1024
    return os.WEXITSTATUS(status), None, used.ru_maxrss / 1024


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
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _remove(folder: Path) -> None:
    """Remove a folder, with folders in it that may not be written."""
    for place, folders, _ in os.walk(folder):
        for name in folders:
            if not os.path.islink(os.path.join(place, name)):
                os.chmod(os.path.join(place, name), 0o700)
    shutil.rmtree(folder)
