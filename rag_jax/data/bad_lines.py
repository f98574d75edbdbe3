"""Callbacks for invalid rows: stop at the first one, or report each and skip it.

Readers pass the error of a single row to an `OnBadLine` callback. If the callback raises, reading stops; if it returns,
the row is skipped. Errors that concern a whole file (missing, damaged, wrong format) are raised regardless.
"""

from collections.abc import Callable

from rag_jax.errors import InputError, printable

OnBadLine = Callable[[InputError], None]


def raise_error(error: InputError) -> None:
    """Stop reading at the first invalid row."""
    raise error


class BadLines:
    """Skip invalid rows: count them, and write each as one line, `FILE:LINE: what; remedy`.

    `write` takes a string, like the `write` method of a text file.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self.count = 0
        self._write = write

    def __call__(self, error: InputError) -> None:
        self.count += 1
        self._write(f"{printable(str(error))}\n")
