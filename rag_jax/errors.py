"""The exception for invalid user input.

A corpus, question file, config or checkpoint that cannot be used raises an `InputError` of one line: what is wrong,
where, and the remedy. Commands print it and exit with code 2. They catch no other exception, so a traceback is always a
defect of the library.
"""

import contextlib
import sys
from collections.abc import Iterator


class InputError(ValueError):
    """Invalid user input; the message is one line: what, where, remedy."""


def warn(text: str) -> None:
    """Print a warning on standard error, in one line."""
    print(f"warning: {text}", file=sys.stderr)


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Report an `InputError` of a command in one line on standard error, and exit with 2; for Ctrl-C, exit with 130.

    The text of a `KeyboardInterrupt`, which says what was saved and how to resume, is printed.
    """
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:
        print(str(error) or "interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


INTERRUPTED = 130  # as in shells: 128 + SIGINT
