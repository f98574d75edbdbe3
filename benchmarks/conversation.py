"""The conversation between a benchmark and the processes that it compares.

It needs numpy alone, so that a side may run in an interpreter that has nothing of this library.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Side:
    """A process that answers requests: a module of benchmarks/ with its arguments, its interpreter and environment."""

    def __init__(self, name: str, *arguments: object, python: str = sys.executable, **variables: str):
        command = [python, "-m", f"benchmarks.{name}", *map(str, arguments)]
        root = Path(__file__).parents[1]
        self._name = name
        environment = {**os.environ, **variables}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        # Ctrl-C of a terminal is for the benchmark alone, which ends its sides with itself.
        self._process = subprocess.Popen(command, cwd=root, env=environment, start_new_session=True, **pipes)
        try:
            self._answer()
        except RuntimeError:
            self.end()
            raise

    def ask(self, **request: Any) -> dict[str, Any]:
        """What the other process's `serve` makes of a request."""
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def end(self) -> None:
        """Let the process go, and its memory."""
        self._process.communicate()

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # it would finish what it is asked first
            self._process.kill()
        self.end()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended with {self._process.wait()}")
        return json.loads(line)


def threads() -> int:
    """Threads of every side: as many as XLA takes, the cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def serve(work: Callable[[dict, dict[str, np.ndarray]], Any], probe: Callable[[], float] | None = None) -> None:
    """Answer requests, a JSON object per line: time, of all threads too, peak memory, and what came of the `inputs`."""
    say, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps({"ready": True}), file=say, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        inputs = dict(np.load(request["inputs"]))
        rate = probe() if probe else None
        _forget_peak()
        began, busy = time.perf_counter(), time.process_time()
        result = work(request, inputs)
        told = {"seconds": time.perf_counter() - began, "processor": time.process_time() - busy}
        told |= {"peak": _peak(), "result": result, "flops/s": rate}
        print(json.dumps(told), file=say, flush=True)


def _forget_peak() -> None:
    """Start the kernel's account of this process's peak memory anew."""
    CLEAR.write_text("5")


def _peak() -> int:
    """Bytes of memory at most since then, weights and program included."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
