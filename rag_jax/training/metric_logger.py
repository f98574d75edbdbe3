"""Log metrics to files, to writers, and to a progress bar or, without a terminal, to plain lines.

`metrics.jsonl` holds computed values: an interrupted and resumed run writes the same bytes as an uninterrupted one.
`timings.jsonl` holds the timings of the same steps, and the seconds before a stop between two of them.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rag_jax.data import files, strict_json
from rag_jax.data.files import write_atomically
from rag_jax.data.json_object import JsonObject
from rag_jax.data.validation import Count, Rate
from rag_jax.errors import InputError
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

    def stopped(self, step: int, seconds: float) -> None:
        """Log the time since the last line of timings, which the run took for steps that it resumes behind."""
        if step > self._step:
            _append(self._workdir / TIMINGS, {"step": step, "seconds": seconds})

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

    def stopped(self, step: int, seconds: float) -> None:
        pass

    def evaluated(self, step: int, scores: Mapping[str, float]) -> None:
        pass

    def warn(self, text: str) -> None:
        pass


def seconds_trained(workdir: Path) -> float:
    """The seconds of a run between its metrics, evaluations and checkpoints included, over all resumptions."""
    return sum(line.read("seconds", Rate) for line in read_lines(workdir / TIMINGS))


def _append(path: Path, line: Mapping[str, Any]) -> None:
    """Append a line and sync, so that it is on disk before the checkpoint of the same step."""
    with files.disk_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(strict_json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _drop_after(path: Path, step: int) -> None:
    """Drop the lines after `step`: a run resumed from an older checkpoint writes them again."""
    if path.exists():
        kept = [strict_json.dumps(line) for line in read_lines(path) if line["step"] <= step]
        write_atomically(path, "".join(f"{line}\n" for line in kept))


def read_lines(path: Path) -> Iterator[JsonObject]:
    """The lines of a file, each with its step, except a last line that is incomplete.

    Raises `InputError` for a file that is missing, and for a line that a run does not write.
    """
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {REMEDY}") from None
    for number, line in enumerate(lines, start=1):
        try:
            values = strict_json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}:{number}: {strict_json.describe(error)}; {REMEDY}") from None
        if not isinstance(values, dict):
            raise InputError(f"{path}:{number}: holds {strict_json.type_name(values)}, not an object; {REMEDY}")
        row = JsonObject(f"{path}:{number}", values, REMEDY)
        row.read("step", Count)
        yield row


REMEDY = "copy it again from where the workdir is from"
