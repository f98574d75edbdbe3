"""How commands end: a line and an exit code, whatever went wrong on the user's side."""

import pytest

from rag_jax.errors import InputError, report_errors


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (InputError("x: no such file; check the path"), "error: x: no such file; check the path\n", 2),
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
