"""What a run writes while it trains, and a progress bar or, where nobody watches, plain lines.

`metrics.jsonl` holds what the run computes: a run that was killed and goes on leaves the same bytes as one that was
not. `timings.jsonl` holds what the clock says of the same steps.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rag_jax.data import files
from rag_jax.data.files import write_atomically
from rag_jax.training.metric_writers import MetricWriter

METRICS, TIMINGS = "metrics.jsonl", "timings.jsonl"
SHOWN = {"loss": "loss", "recall": "recall@K", "learning_rate": "lr", "examples/s": "ex/s"}
"""What the terminal has room for in 80 columns, by the names it has there."""


class MetricLogger:
    """Use as a context: what was written after `first_step`, by a run that went further, is dropped on entering."""

    def __init__(
        self, workdir: Path, first_step: int, steps: int, console: Console, writers: Sequence[MetricWriter] = ()
    ) -> None:
        self._workdir, self._steps, self._console, self._writers = workdir, steps, console, writers
        self._step = first_step
        columns = (BarColumn(12), MofNCompleteColumn(), TextColumn("{task.fields[said]}"))
        self._progress = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=steps, completed=first_step, said="compiling")

    def __enter__(self) -> "MetricLogger":
        for name in (METRICS, TIMINGS):
            _forget_after(self._workdir / name, self._step)
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        for writer in self._writers:
            writer.close()

    def log(self, step: int, values: Mapping[str, float], timed: Mapping[str, float]) -> None:
        """What the steps since the last call came to, and what the clock says of them (`seconds` at least)."""
        steps, self._step = step - self._step, step
        _append(self._workdir / METRICS, {"step": step, **values})
        _append(self._workdir / TIMINGS, {"step": step, **timed})
        told = {**values, **timed}
        for writer in self._writers:
            writer.write(step, told)
        shown = {label: told[name] for name, label in SHOWN.items() if name in told}
        said = " ".join(f"{label} {value:.3g}" for label, value in shown.items())
        self._progress.update(self._task, completed=step, said=said)
        if not self._console.is_terminal:
            left = timed["seconds"] / steps * (self._steps - step)
            self._say(f"step {step}/{self._steps}  {said}  {left:.0f} s left")

    def evaluated(self, step: int, scores: Mapping[str, float]) -> None:
        """The scores of an evaluation in between."""
        _append(self._workdir / METRICS, {"step": step, "evaluation": dict(scores)})
        for writer in self._writers:
            writer.write(step, {f"evaluation/{name}": value for name, value in scores.items()})
        self._say(f"step {step}: " + "  ".join(f"{name} {value:.3f}" for name, value in scores.items()))

    def warn(self, text: str) -> None:
        """One line for whoever watches."""
        self._say(f"warning: {text}")

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


class NullLogger:
    """The journal of a process that is not the first of several: the first one tells for all."""

    def __enter__(self) -> "NullLogger":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def log(self, step: int, values: Mapping[str, float], timed: Mapping[str, float]) -> None:
        pass

    def evaluated(self, step: int, scores: Mapping[str, float]) -> None:
        pass

    def warn(self, text: str) -> None:
        pass


def seconds_trained(workdir: Path) -> float:
    """The time that a run's steps took, over all the times that it was continued."""
    return sum(line["seconds"] for line in _lines(workdir / TIMINGS))


def _append(path: Path, line: Mapping[str, Any]) -> None:
    """Onto the disk before a checkpoint of the same step can be there."""
    with files.disk_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(_finite(line)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: null."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _forget_after(path: Path, step: int) -> None:
    """Drop the lines that a continued run is going to write again, having started from an older checkpoint."""
    if path.exists():
        kept = [json.dumps(line) for line in _lines(path) if line["step"] <= step]
        write_atomically(path, "".join(f"{line}\n" for line in kept))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file, but for a last one that was cut short by a kill."""
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)
