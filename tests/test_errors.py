"""How commands end: a line and an exit code, whatever went wrong on the user's side."""

import errno
import os
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_jax.errors import InputError, printable, report_errors, warn

DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (InputError("x: no such file; check the path"), "error: x: no such file; check the path\n", 2),
        (InputError("a\nb\x1b[2J\udcff: no such file"), "error: a\\nb\\x1b[2J\\udcff: no such file\n", 2),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "x" * 999),
            f"error: {'x' * 200}…: the operating system refuses it (File name too long); "
            "check the path, its permissions and the disk\n",
            2,
        ),
        (
            OSError(errno.EIO, "Input/output error"),
            "error: a file of this command: the operating system refuses it (Input/output error); "
            "check the path, its permissions and the disk\n",
            2,
        ),
        (KeyboardInterrupt(), "interrupted\n", 130),
        (KeyboardInterrupt("interrupted; run it again to resume"), "interrupted; run it again to resume\n", 130),
    ],
)
def test_a_command_ends_in_one_line(capsys, error: BaseException, line: str, code: int) -> None:
    with pytest.raises(SystemExit) as stopped, report_errors():
        raise error
    assert stopped.value.code == code
    assert capsys.readouterr() == ("", line)


def test_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), report_errors():
        raise ZeroDivisionError


HOSTILE = "\x1b[31mred\x1b[0m\x07 \x9b2J \u202egnp.exe \u2066\u2028 \udcff \ufeff"


def test_an_error_and_a_warning_control_no_terminal_and_are_one_line(capsys) -> None:
    with pytest.raises(SystemExit), report_errors():
        raise InputError(f"a\nb\tc\rd {HOSTILE}")
    warn(f"a\nb {HOSTILE}")
    error, warning, rest = capsys.readouterr().err.split("\n")
    shown = r"\x1b[31mred\x1b[0m\x07 \x9b2J \u202egnp.exe \u2066\u2028 \udcff \ufeff"
    assert error == rf"error: a\nb\tc\rd {shown}"
    assert warning == rf"warning: a\nb {shown}"
    assert rest == ""


@given(st.text())
def test_what_is_printed_is_escaped_and_nothing_else(text: str) -> None:
    shown = printable(text)
    odd = {"Cc", "Cs"}
    assert all(unicodedata.category(each) not in odd or each in "\t\n" for each in shown)
    assert all(unicodedata.bidirectional(each) not in DIRECTIONS for each in shown)
    kept = [each for each in text if unicodedata.category(each) not in {*odd, "Cf", "Zl", "Zp"} or each in "\t\n"]
    if len(kept) == len(text):
        assert shown == text


def test_an_error_of_a_library_keeps_its_traceback_too() -> None:
    with pytest.raises(OSError, match="of a library"), report_errors():
        raise OSError("of a library")


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_command_whose_output_nobody_reads_ends_in_silence(lines: int) -> None:
    program = f"from rag_jax.errors import report_errors\nwith report_errors():\n    print({lines} * 'line\\n')"
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")
