"""Bad rows: refused, or counted and logged."""

import io

import pytest

from rag_jax.data.bad_lines import BadLines, raise_error
from rag_jax.errors import InputError


def test_the_first_bad_row_is_refused_as_it_is():
    error = InputError("f:1: wrong; right it")
    with pytest.raises(InputError) as caught:
        raise_error(error)
    assert caught.value is error


def test_bad_lines_are_counted_and_written_one_a_line():
    log = io.StringIO()
    bad = BadLines(log.write)
    assert bad.count == 0
    for number in (1, 2):
        bad(InputError(f"f:{number}: wrong; right it"))
        assert bad.count == number
    assert log.getvalue() == "f:1: wrong; right it\nf:2: wrong; right it\n"


def test_a_name_that_is_not_utf_8_is_escaped() -> None:
    written: list[str] = []
    BadLines(written.append)(InputError("caf\udce9.txt:1: invalid UTF-8; save it as UTF-8"))
    assert written == ["caf\\udce9.txt:1: invalid UTF-8; save it as UTF-8\n"]
