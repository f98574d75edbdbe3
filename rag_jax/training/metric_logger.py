"""Log metrics to files, to writers, and to a progress bar or, without a terminal, to plain lines.

`metrics.jsonl` holds computed values: an interrupted and resumed run writes the same bytes as an uninterrupted one.
`timings.jsonl` holds the timings of the same steps.
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
SHOWN = {"loss": "loss", "recall": "recall@K", "accuracy": "accuracy", "learning_rate": "lr", "examples/s": "ex/s"}
"""The metrics shown in a terminal of 80 columns, with their labels."""


class MetricLogger:
    """A context manager; on entry it drops lines after `first_step`, written by a run that was interrupted later."""

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
            _drop_after(self._workdir / name, self._step)
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        for writer in self._writers:
            writer.close()

    def log(self, step: int, values: Mapping[str, float], timed: Mapping[str, float]) -> None:
        """Log the metrics of the steps since the last call, and their timings (`seconds` at least)."""
        steps, self._step = step - self._step, step
        _append(self._workdir / METRICS, {"step": step, **values})
        _append(self._workdir / TIMINGS, {"step": step, **timed})
        metrics = {**values, **timed}
        for writer in self._writers:
            writer.write(step, metrics)
        shown = {label: metrics[name] for name, label in SHOWN.items() if name in metrics}
        said = " ".join(f"{label} {value:.3g}" for label, value in shown.items())
        self._progress.update(self._task, completed=step, said=said)
        if not self._console.is_terminal:
            left = timed["seconds"] / steps * (self._steps - step)
            self._print(f"step {step}/{self._steps}  {said}  {left:.0f} s left")

    def evaluated(self, step: int, scores: Mapping[str, float]) -> None:
        """Log the scores of an evaluation during training."""
        _append(self._workdir / METRICS, {"step": step, "evaluation": dict(scores)})
        for writer in self._writers:
            writer.write(step, {f"evaluation/{name}": value for name, value in scores.items()})
        self._print(f"step {step}: " + "  ".join(f"{name} {value:.3f}" for name, value in scores.items()))

    def warn(self, text: str) -> None:
        """Print a one-line warning."""
        self._print(f"warning: {text}")

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


class NullLogger:
    """The logger of every process but the first: it does nothing."""

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
    """The seconds that a run's steps took, summed over all resumptions."""
    return sum(line["seconds"] for line in _lines(workdir / TIMINGS))


def _append(path: Path, line: Mapping[str, Any]) -> None:
    """Append a line and sync, so that it is on disk before the checkpoint of the same step."""
    with files.disk_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(_finite(line)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON lacks, by None."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _drop_after(path: Path, step: int) -> None:
    """Drop the lines after `step`: a run resumed from an older checkpoint writes them again."""
    if path.exists():
        kept = [json.dumps(line) for line in _lines(path) if line["step"] <= step]
        write_atomically(path, "".join(f"{line}\n" for line in kept))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file, except a last line that is incomplete."""
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)
