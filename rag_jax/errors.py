"""The one exception a user is meant to read.

Whatever the user brought — a corpus, a question file, a config, a checkpoint — that cannot be used ends in an
`InputError`: one line that names what is wrong, where, and the remedy. The commands print it and exit with 2; no other
exception is caught there, so a traceback is always a defect of the library.
"""

import contextlib
import sys
from collections.abc import Iterator


class InputError(ValueError):
    """Something the user brought cannot be used; the message is one line: what, where, remedy."""


def warn(text: str) -> None:
    """Tell on the standard error what was got over, in one line."""
    print(f"warning: {text}", file=sys.stderr)


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Around a command: an `InputError` becomes one line on the standard error, and exit code 2; Ctrl-C one, and 130.

    Whoever raises `KeyboardInterrupt` with a text has it printed: what was kept, and how to resume.
    """
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:
        print(str(error) or "interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


INTERRUPTED = 130  # as shells count: 128 and the number of SIGINT
