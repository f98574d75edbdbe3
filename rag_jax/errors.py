"""The exception for invalid user input.

A corpus, question file, config or checkpoint that cannot be used raises an `InputError` of one line: what is wrong,
where, and the remedy. Commands print it and exit with code 2. They do the same where the operating system refuses a
path, wherever that shows; any other exception is a defect of the library, and keeps its traceback.
"""

import contextlib
import functools
import os
import re
import sys
from collections.abc import Iterator


class InputError(ValueError):
    """Invalid user input; the message is one line: what, where, remedy."""


# Control characters of ASCII and Latin-1 without tab and line feed, the signs that change the direction of writing, the
# separators of lines and paragraphs, and the halves of surrogate pairs, which stand for bytes that are not UTF-8.
_CONTROL = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_CONTROLS, _CONTROLS_AND_BREAKS = re.compile(f"[{_CONTROL}]"), re.compile(f"[{_CONTROL}\t\n]")


def printable(text: str) -> str:
    """A text for a terminal: what would control it is written as an escape, such as `\\x1b`. Line feeds are kept."""
    return _CONTROLS.sub(_escaped, text)


def one_line(text: str) -> str:
    """`printable`, with line feeds and tabs as escapes too."""
    return _CONTROLS_AND_BREAKS.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def warn(text: str) -> None:
    """Print a warning on standard error, in one line."""
    print(f"warning: {one_line(text)}", file=sys.stderr)


@functools.lru_cache
def warn_once(text: str) -> None:
    """`warn`, but not again of the same."""
    warn(text)


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Report an `InputError` of a command in one line on standard error, and exit with 2; for Ctrl-C, exit with 130.

    Errors of the operating system about a file are reported alike. The text of a `KeyboardInterrupt`, which says what
    was saved and how to resume, is printed. Where nobody reads standard output any more, as behind `| head`, the
    command ends in silence with 141.
    """
    try:
        yield
        sys.stdout.flush()  # a closed pipe shows here, not when the interpreter ends
    except InputError as error:
        _refuse(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), STANDARD_OUTPUT)  # for what is still to be flushed
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        if error.errno is None:
            raise
        _refuse(_of_system(error))
    except KeyboardInterrupt as error:
        print(one_line(str(error)) or "interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _refuse(message: str) -> None:
    print(f"error: {one_line(message)}", file=sys.stderr)
    sys.exit(2)


def _of_system(error: OSError) -> str:
    name = error.filename or "a file of this command"
    name = str(name, errors="backslashreplace") if isinstance(name, bytes) else str(name)
    where = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"
    return f"{where}: the operating system refuses it ({error.strerror}); check the path, its permissions and the disk"


INTERRUPTED, BROKEN_PIPE = 130, 141  # as in shells: 128 + SIGINT, 128 + SIGPIPE
STANDARD_OUTPUT = 1
MAX_NAME = 200  # characters of a path in messages
