"""What a run writes while it trains: `metrics.jsonl`, and a progress bar or, where nobody watches, plain lines."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SHOWN = {"loss": "loss", "recall": "recall@K", "learning_rate": "lr", "examples/s": "ex/s"}
"""What the progress bar has room for in 80 columns, by the names it has there."""


class Journal:
    """Use as a context. `log` appends a line to `metrics.jsonl` and tells the terminal."""

    def __init__(self, path: Path, first_step: int, steps: int, console: Console):
        self._path, self._steps, self._console = path, steps, console
        self._step, self._since = first_step, time.perf_counter()
        columns = (BarColumn(12), MofNCompleteColumn(), TextColumn("{task.fields[said]}"))
        self._progress = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=steps, completed=first_step, said="compiling")

    def __enter__(self) -> "Journal":
        _forget_after(self._path, self._step)
        self._progress.start()
        self._since = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def log(self, step: int, values: Mapping[str, float], examples: int) -> None:
        """`values` of the steps since the last call, in which `examples` were seen; their time is told beside them."""
        now = time.perf_counter()
        seconds, steps = now - self._since, step - self._step
        self._step, self._since = step, now
        values = {**values, "examples/s": examples / seconds}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values, "seconds": seconds}) + "\n")
        shown = " ".join(f"{label} {values[name]:.3g}" for name, label in SHOWN.items() if name in values)
        self._progress.update(self._task, completed=step, said=shown)
        if not self._console.is_terminal:
            said = "  ".join(f"{name} {value:.3g}" for name, value in values.items())
            left = seconds / steps * (self._steps - step)
            self._console.print(
                f"step {step}/{self._steps}  {said}  {left:.0f} s left", soft_wrap=True, highlight=False
            )


def seconds_trained(path: Path) -> float:
    """The time that the steps in a `metrics.jsonl` took, over all the times that the run was continued."""
    return sum(line["seconds"] for line in _lines(path))


def _forget_after(path: Path, step: int) -> None:
    """Drop the lines that a continued run is going to write again, having started from an older checkpoint."""
    if path.exists():
        kept = [json.dumps(line) for line in _lines(path) if line["step"] <= step]
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _lines(path: Path) -> Iterator[dict[str, float]]:
    """The lines of a `metrics.jsonl`, but for a last one that was cut short by a kill."""
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)
