"""Rows that a command appends to a file as they are computed, and puts in order at the end."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rag_jax.commands.progress import Progress
from rag_jax.data import outputs

Rows = Callable[[Collection[int]], Iterable[tuple[int, Mapping[str, Any]]]]


def write_rows(path: Path, fingerprint: str, ids: Sequence[str], rows: Rows, *, doing: str, of: str, made: str) -> None:
    """Append a line for each id to a new file, or to one that the same command did not finish.

    Args:
        fingerprint: a digest of everything that the lines depend on.
        rows: from the numbers of the lines that are there to (number, row) of the others; not called if all are.
        doing, of: what the progress bar says is done, and to what: "answering", "questions".
        made: what the lines hold, for the message of an interruption: "answers".

    Raises `InputError` for a file of anything else, and `KeyboardInterrupt` with what was written and how to resume.
    """
    with outputs.resumable_lines(path, fingerprint) as lines:
        done = {number for number, id in enumerate(ids) if id in lines}
        try:
            if len(done) < len(ids):
                computed = rows(done)  # what it prepares is not counted in the rate
                with Progress(doing, len(ids), len(done), of=of) as progress:
                    for number, row in progress.counted(computed):
                        lines.append(ids[number], row)
            lines.reorder(ids)
        except KeyboardInterrupt:
            written = f"{len(lines):,} of {len(ids):,} {made} are in {path}"
            raise KeyboardInterrupt(f"interrupted: {written}; run the same command to resume") from None
