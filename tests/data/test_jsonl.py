"""Rows of JSON lines: what is written is read back, and every fault is named by its file and line."""

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_jax.data.jsonl import read_jsonl, write_jsonl
from rag_jax.errors import InputError

characters = st.characters(exclude_categories=["Cs"])
leaves = st.none() | st.booleans() | st.integers() | st.text(characters)
values = leaves | st.lists(leaves, max_size=3)
rows = st.lists(st.dictionaries(st.text(characters), values, max_size=3), max_size=3)
# The folder of one test serves all of its examples: each writes its file anew.
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)


def error_of(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        list(read_jsonl(path))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "new/folder/rows.jsonl"])
@one_folder
@given(rows=rows)
def test_what_is_written_is_read_back(tmp_path, name, rows):
    write_jsonl(tmp_path / name, rows)
    assert list(read_jsonl(tmp_path / name)) == list(enumerate(rows, start=1))


def test_text_is_written_as_it_reads(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "Żółw — 亀\u2028\n"}])
    assert (tmp_path / "rows.jsonl").read_text("utf-8") == '{"text": "Żółw — 亀\u2028\\n"}\n'


def test_a_gz_name_is_compressed(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl.gz", [{"a": 1}])
    assert gzip.decompress((tmp_path / "rows.jsonl.gz").read_bytes()) == b'{"a": 1}\n'


def test_an_interrupted_writer_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    def interrupted():
        yield {"a": 2}
        raise KeyboardInterrupt

    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"a": 1}])
    with pytest.raises(KeyboardInterrupt):
        write_jsonl(path, interrupted())
    assert os.listdir(tmp_path) == ["rows.jsonl"]
    assert list(read_jsonl(path)) == [(1, {"a": 1})]


def test_a_place_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "rows.jsonl", tmp_path / "folder"):
        with pytest.raises(InputError, match=r"cannot be written \(.+\); choose another place") as caught:
            write_jsonl(path, [{"a": 1}])
        assert str(caught.value).startswith(f"{path}: ")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_blank_lines_are_skipped_but_counted(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n   \r\n{"a": 2}')
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (4, {"a": 2})]


def test_lines_are_read_only_as_they_are_asked_for(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\xff\n')
    assert next(read_jsonl(path)) == (1, {"a": 1})


@pytest.mark.parametrize(
    ("line", "what", "remedy"),
    [
        (b'{"a": 1', "malformed JSON at column 8", "one JSON object on each line"),
        (b"[1]", "holds a list, not an object", "one JSON object on each line"),
        (b"null", "holds null, not an object", "one JSON object on each line"),
        (b"true", "holds true, not an object", "one JSON object on each line"),
        (b'"a"', "holds a string, not an object", "one JSON object on each line"),
        (b"1" * 5000, "JSON too large", "one plain JSON object on each line"),
        (b"[" * 200_000, "malformed JSON (nested too deeply)", "one JSON object on each line"),
        (b'{"a": "\xff"}', "byte 8 is not UTF-8", "save the file as UTF-8"),
        (b'{"a": "\0"}', "holds a NUL byte", "remove it"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(tmp_path, line, what, remedy):
    path = tmp_path / "rows.jsonl"
    message = error_of(path, b'{"a": 1}\n\n' + line + b"\n")
    assert message.startswith(f"{path}:3: {what}")
    assert remedy in message


def test_a_missing_file_and_a_folder_are_input_errors(tmp_path):
    with pytest.raises(InputError, match=r"none\.jsonl: no such file; check the path"):
        list(read_jsonl(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match="is a folder, not a file; name a file"):
        list(read_jsonl(tmp_path))


def test_a_file_that_the_system_refuses_is_an_input_error(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "rows.jsonl").write_text("{}")
    monkeypatch.setattr("rag_jax.data.lines.open_bytes", refuse)
    with pytest.raises(InputError, match=r"rows\.jsonl: cannot be read \(Permission denied\); check its permissions"):
        list(read_jsonl(tmp_path / "rows.jsonl"))


def test_damaged_gzip_is_an_input_error(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    whole = gzip.compress(b"".join(json.dumps({"a": i}).encode() + b"\n" for i in range(1000)))
    flipped = whole[:40] + bytes([whole[40] ^ 0xFF]) + whole[41:]
    for content in (b"not gzip at all", whole[:-20], flipped):
        message = error_of(path, content)
        assert message.startswith(f"{path}:")
        assert "; " in message
    assert "damaged gzip" in error_of(path, whole[:-20])


def test_bad_lines_are_left_out_and_the_others_keep_their_numbers(tmp_path):
    path, errors = tmp_path / "rows.jsonl", []
    path.write_bytes(b'[1]\n{"a": 1}\n{"a"\n\n\xff\n{"a": 2}\n')
    assert list(read_jsonl(path, errors.append)) == [(2, {"a": 1}), (6, {"a": 2})]
    assert [str(error).split(": ")[0] for error in errors] == [f"{path}:{number}" for number in (1, 3, 5)]
