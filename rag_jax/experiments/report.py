"""The report of an experiment: a table, a figure, and what the paper found beside what was found here."""

import csv
import io
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax

from rag_jax.data.own_folder import OwnFolder
from rag_jax.evaluation.figures import as_png
from rag_jax.experiments.runs import Run, in_order
from rag_jax.training.metric_logger import TIMINGS, seconds_trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKER = "rag-jax.experiments"
Cell = str | int | float | None


class Table(NamedTuple):
    """Columns by name, and rows of as many cells; None and NaN are empty."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]


class Report(NamedTuple):
    """What an experiment found."""

    title: str
    table: Table
    paper: str  # what the paper found
    found: str  # what was found here, computed from the numbers
    draw: Callable[[], "Figure"]
    runs: Sequence[Run]  # trained for it; those that they need are listed with them
    questions: int | None  # measured on; None: only on those of the training
    seeds: int
    data: Table | None = None  # the rows of the .csv; None: those of the table
    notes: tuple[str, ...] = ()


def own_folder(folder: Path) -> OwnFolder:
    """A folder of experiments, or of one of them."""
    return OwnFolder(folder, MARKER, "experiments", "choose another --workdir")


def file_names(name: str) -> tuple[str, ...]:
    """The files of an experiment's report."""
    return tuple(f"{name}.{suffix}" for suffix in ("md", "csv", "png"))


def write(report: Report, name: str, folder: Path, command: str) -> None:
    """Write `NAME.md`, `NAME.csv` and `NAME.png` into a claimed folder. Raises `InputError` as `OwnFolder.write`."""
    texts = markdown(report, name, command), as_csv(report.data or report.table)
    contents = [*(text.encode() for text in texts), as_png(report.draw())]
    own_folder(folder).write(dict(zip(file_names(name), contents, strict=True)))


def markdown(report: Report, name: str, command: str) -> str:
    """The report as Markdown: table, findings, figure, and what it takes to get it again."""
    parts = [
        f"# {report.title}",
        markdown_table(report.table),
        *report.notes,
        f"**The paper:** {report.paper}",
        f"**Here:** {report.found}",
        f"![{report.title}]({name}.png)",
        "\n".join(
            (
                f"- command: `{command}`",
                f"- {_questions(report)}seeds: {report.seeds}",
                f"- machine: {_cores()} CPU cores, {jax.device_count()} {jax.default_backend()} device(s)",
                *(["- runs:"] if report.runs else []),
                *(f"  - {_length(run)}" for run in in_order(report.runs)),
            )
        ),
    ]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """A table as Markdown, floats with three decimals."""
    head, *rows = ([_text(cell) for cell in row] for row in (table.columns, *table.rows))
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_csv(table: Table) -> str:
    """A table as comma-separated values, with all digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([None if _is_empty(cell) else cell for cell in row] for row in table.rows)
    return text.getvalue()


def _text(cell: Cell) -> str:
    if _is_empty(cell):
        return ""
    text = f"{cell:.3f}" if isinstance(cell, float) else str(cell)
    return " ".join(text.replace("|", "\\|").split())


def _is_empty(cell: Cell) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _questions(report: Report) -> str:
    return "" if report.questions is None else f"questions: {report.questions:,}; "


def _length(run: Run) -> str:
    config, there = run.config, (run.workdir / TIMINGS).exists()  # a run that others started from may be gone
    took = f"{seconds_trained(run.workdir):.0f} s" if there else "its folder is gone"
    return f"{run.name}: {config.steps:,} steps of {config.batch_size} questions, {took}"


def _cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
