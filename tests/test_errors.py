"""How commands end: a line and an exit code, whatever went wrong on the user's side."""

import errno

import pytest

from rag_jax.errors import InputError, report_errors


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


@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError("of a library")])
def test_what_is_no_file_keeps_its_traceback_too(error: OSError) -> None:
    with pytest.raises(OSError, match=str(error.args[-1])), report_errors():
        raise error
