"""What is read is standard JSON, and what is written is; everything else is an error of one line."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_jax.data import json_object, strict_json
from rag_jax.errors import InputError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_what_is_written_is_read_again(value: object) -> None:
    assert strict_json.loads(strict_json.dumps(value)) == value
    assert strict_json.loads(b"\xef\xbb\xbf" + strict_json.dumps(value, indent=2).encode()) == value


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_written_as_null(number: float) -> None:
    assert strict_json.dumps({"a": [number, (number, 1.5)], "b": number}) == '{"a": [null, [null, 1.5]], "b": null}'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"{", ":1: not JSON (Expecting property name"),
        (b"", ":1: not JSON (Expecting value)"),
        (b'{"a": NaN}', ": not JSON (NaN is no number of JSON)"),
        (b'{"a": -Infinity}', ": not JSON (-Infinity is no number"),
        (b'{"a": 1e999}', ": not JSON (the number 1e999 is too large)"),
        (b'{"a": {"b": 1, "b": 2}}', ': not JSON (the key "b" occurs twice)'),
        (b"[" * 200_000 + b"]" * 200_000, ": not JSON (nested too deeply)"),
        (b'{"a": ' + b"9" * 5_000 + b"}", ": not JSON (a number is too long)"),
        (b'{"a": "\\ud83d"}', ": a string holds half a surrogate pair"),
        (b'{"\\uDC00": 1}', ": a string holds half a surrogate pair"),
        (b'{"a": "\xff"}', ": not UTF-8 text"),
        (b"[1]", ": holds a list, not an object"),
        (b"null", ": holds null, not an object"),
    ],
)
def test_anything_else_is_an_error_of_one_line(tmp_path: Path, text: bytes, told: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(InputError) as error:
        strict_json.read_object(path, "name another")
    message = str(error.value)
    assert message.startswith(f"{path}{told}")
    assert "\n" not in message
    assert message.endswith("; copy or download it again")


def test_a_whole_pair_of_surrogates_is_a_character() -> None:
    assert strict_json.loads('"\\ud83d\\ude00"') == "\U0001f600"


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no: no such file; name another$"):
        strict_json.read(tmp_path / "no", "name another")
    with pytest.raises(InputError, match=r": cannot be read \(Is a directory\); name another$"):
        strict_json.read(tmp_path, "name another")


def test_keys_are_read_with_their_types(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": 1, "b": None}))
    found = json_object.read(path, "name another")
    assert (found.read("a", int), found.read("b", int, 3), found.read("c", int, 4), found.read("b", int | None)) == (
        *(1, 3, 4),
        None,
    )
    with pytest.raises(InputError, match=r"a\.json: a is 1; give a text in quotes$"):
        found.read("a", str)
    with pytest.raises(InputError, match=r"a\.json: has no 'c'; copy or download it again$"):
        found.read("c", int)
