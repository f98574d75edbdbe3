"""The exception for invalid user input.

A corpus, question file, config or checkpoint that cannot be used raises an `InputError` of one line: what is wrong,
where, and the remedy. Commands print it and exit with code 2. They do the same where the operating system refuses a
path, wherever that shows; any other exception is a defect of the library, and keeps its traceback.
"""

import contextlib
import sys
from collections.abc import Iterator


class InputError(ValueError):
    """Invalid user input; the message is one line: what, where, remedy."""


def warn(text: str) -> None:
    """Print a warning on standard error, in one line."""
    print(f"warning: {one_line(text)}", file=sys.stderr)


def one_line(text: str) -> str:
    """The text with control characters, line ends among them, as escapes: names of files may hold any."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Report an `InputError` of a command in one line on standard error, and exit with 2; for Ctrl-C, exit with 130.

    Errors of the operating system about a file are reported alike. The text of a `KeyboardInterrupt`, which says what
    was saved and how to resume, is printed.
    """
    try:
        yield
    except InputError as error:
        _refuse(str(error))
    except OSError as error:
        if error.errno is None or isinstance(error, BrokenPipeError):
            raise
        _refuse(_of_system(error))
    except KeyboardInterrupt as error:
        print(str(error) or "interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _refuse(message: str) -> None:
    print(f"error: {one_line(message)}", file=sys.stderr)
    sys.exit(2)


def _of_system(error: OSError) -> str:
    name = error.filename or "a file of this command"
    name = str(name, errors="backslashreplace") if isinstance(name, bytes) else str(name)
    where = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"
    return f"{where}: the operating system refuses it ({error.strerror}); check the path, its permissions and the disk"


INTERRUPTED = 130  # as in shells: 128 + SIGINT
MAX_NAME = 200  # characters of a path in messages
