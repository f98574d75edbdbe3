"""What becomes of a bad row: whoever reads a file says whether reading ends there, or goes on without the row.

Readers of files hand every fault of a single row to a `Bad`. If it raises, reading ends; if it returns, the row is left
out and the next one is read. Faults of a whole file (missing, damaged, of the wrong kind) are raised whatever it says.
"""

from collections.abc import Callable

from rag_jax.errors import InputError

OnBadLine = Callable[[InputError], None]


def raise_error(error: InputError) -> None:
    """Ends the reading at the first bad row."""
    raise error


class BadLines:
    """Leaves bad rows out: `count` of them so far, each written as a line, `FILE:LINE: what; remedy`.

    `write` takes text, as the method of a file or of a stream does.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self.count = 0
        self._write = write

    def __call__(self, error: InputError) -> None:
        self.count += 1
        self._write(f"{error}\n")
