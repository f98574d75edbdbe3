"""The reports of threads that write checkpoints are dropped where they fail: the failure is raised as well, once.

On a full disk orbax logs a traceback for each of its threads, and tensorstore prints one for each array that it had not
written yet, thousands of lines around the one that says what to do.
"""

import functools
import logging
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

WRITERS = {"orbax", "tensorstore", "asyncio"}
"""Folders of the code that runs in these threads."""


@functools.cache
def install() -> None:
    """Drop them from now on; anything else is reported as before."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(lambda record: not _is_failure(record))
    report, unraisable, in_thread = sys.excepthook, sys.unraisablehook, threading.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not _is_of_writers(trace):
            report(kind, error, trace)

    def of_arguments(hook: Any) -> Any:
        return lambda failed: None if _is_of_writers(failed.exc_traceback) else hook(failed)

    sys.excepthook, sys.unraisablehook = excepthook, of_arguments(unraisable)
    threading.excepthook = of_arguments(in_thread)


def _is_failure(record: logging.LogRecord) -> bool:
    """Whether a thread of orbax, or a task of its event loop, logs that it failed."""
    if record.levelno < logging.ERROR:
        return False
    if record.name == "asyncio":
        return record.exc_info is not None and _passes(record.exc_info[2], WRITERS - {"asyncio"})
    return "orbax" in Path(record.pathname).parts


def _is_of_writers(trace: TracebackType | None) -> bool:
    """Whether a traceback is of such a thread: the main one raises, and is never silenced."""
    if threading.current_thread() is threading.main_thread():
        return False
    return _passes(trace, WRITERS)


def _passes(trace: TracebackType | None, folders: set[str]) -> bool:
    """Whether a traceback has a frame of code in one of these folders."""
    while trace is not None:
        if folders & set(Path(trace.tb_frame.f_code.co_filename).parts):
            return True
        trace = trace.tb_next
    return False
