"""One part of the run, as a process of its own: python -m benchmarks.accelerator.search SIZE WEIGHTS OUT"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.accelerator.scale import SCALES, Scale


class Record:
    """The figures of a part, in a file from the moment that they are known."""

    def __init__(self, path: Path) -> None:
        self._path, self._figures = path, {}

    def __call__(self, **figures: Any) -> None:
        """Add figures. A name that is there already is replaced."""
        self._figures |= figures
        side = self._path.with_suffix(".tmp")
        side.write_text(json.dumps(self._figures, indent=2), encoding="utf-8")
        os.replace(side, self._path)


def run(main: Callable[[Scale, Path, Record], None]) -> None:
    """Call a part's `main` with what the command line names: sizes, the folder of the weights, where figures go."""
    size, folder, out = sys.argv[1:4]
    main(SCALES[size], Path(folder), Record(Path(out)))


def seconds(call: Callable[[], Any], rounds: int) -> list[float]:
    """The seconds of each of `rounds` calls, which must wait for their own results; the caller has warmed up."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return times


def spread(times: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(times), "min": min(times), "max": max(times)}


def reason(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}".partition("\n")[0][:300]
