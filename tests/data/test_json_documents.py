"""JSON documents: items are read one by one, and every fault is named by its item."""

import gzip
import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_jax.data import json_documents as module
from rag_jax.data.json_documents import read_head, read_items, read_object
from rag_jax.errors import InputError

characters = st.characters(exclude_categories=["Cs"])
leaves = st.none() | st.booleans() | st.integers() | st.text(characters)
values = leaves | st.lists(leaves, max_size=3)
objects = st.dictionaries(st.text(characters), values, max_size=3)


def error_of(reader, path) -> str:
    with pytest.raises(InputError) as caught:
        list(reader(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(
    rows=st.lists(objects, max_size=4),
    indent=st.sampled_from([None, 0, 3]),
    is_ascii=st.booleans(),
    size=st.integers(1, 40),
)
def test_items_are_those_of_the_list_whatever_the_chunks(tmp_path, rows, indent, is_ascii, size):
    text = json.dumps(rows, indent=indent, ensure_ascii=is_ascii)
    (tmp_path / "list.json").write_bytes(f"\ufeff\n {text}\n ".encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_BYTES", size)
        assert list(read_items(tmp_path / "list.json")) == list(enumerate(rows, start=1))


def test_gz_names_are_compressed(tmp_path):
    (tmp_path / "list.json.gz").write_bytes(gzip.compress(b'[{"a": 1}]'))
    assert list(read_items(tmp_path / "list.json.gz")) == [(1, {"a": 1})]
    (tmp_path / "object.json.gz").write_bytes(gzip.compress(b'{"a": 1}'))
    assert read_object(tmp_path / "object.json.gz") == {"a": 1}


def test_a_long_list_is_not_held(tmp_path):
    item = json.dumps({"text": "x" * 100_000})
    (tmp_path / "list.json").write_text(f"[{', '.join([item] * 200)}]")
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_items(tmp_path / "list.json"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 200
    assert peak < 10 * module.CHUNK_BYTES  # the file has 20 MB


@pytest.mark.parametrize(
    ("content", "what", "remedy"),
    [
        ('[{"a": 1}, {"b": }]', ": item 2: malformed JSON (Expecting value)", "copy or download"),
        ('[{"a": 1}, {"b": "c', ": item 2: malformed JSON (Unterminated string", "copy or download"),
        ('[{"a": 1}, 3]', ": item 2: is not a JSON object", "a list of objects"),
        ('[{"a": 1}, ]', ": item 2: is not a JSON object", "a list of objects"),
        ('[{"a": 1}', ": malformed JSON after the last item", "copy or download"),
        ('[{"a": 1} {"b": 2}]', ": malformed JSON after the last item", "copy or download"),
        ('[{"a": 1}] [', ": malformed JSON, text follows the list", "one list in a file"),
        ('[{"a": ' + "1" * 5_000 + "}]", ": item 1: JSON too large", "plain JSON objects"),
        ('[{"a": ' + "[" * 200_000, ": item 1: JSON too large", "plain JSON objects"),
        ('{"a": 1}', ": is not a list", "as one"),
    ],
)
def test_a_damaged_list_is_named_by_its_item(tmp_path, content, what, remedy):
    path = tmp_path / "list.json"
    path.write_text(content)
    message = error_of(read_items, path)
    assert message.startswith(f"{path}{what}")
    assert remedy in message.split("; ")[-1]


def test_an_item_that_does_not_end_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(module, "CHUNK_BYTES", 10)
    (tmp_path / "list.json").write_text('[{"a": "' + "x" * 10_000)
    assert ": item 1: malformed JSON, or longer than 0 MiB (Unterminated" in error_of(
        read_items, tmp_path / "list.json"
    )


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ('{"a": 1,\n "b"', "malformed JSON at line 2, column 5 (Expecting ':' delimiter); copy or download"),
        ('{"a": ' + "[" * 200_000, "malformed JSON (nested too deeply)"),
        ("[]", "is not a JSON object; write the document as one"),
    ],
)
def test_a_damaged_object_is_one_line(tmp_path, content, what):
    path = tmp_path / "object.json"
    path.write_text(content)
    assert error_of(read_object, path).startswith(f"{path}: {what}")


def test_an_object_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_OBJECT_BYTES", 2**20)
    (tmp_path / "object.json").write_text(json.dumps({"a": "x" * 2**20}))
    assert ": a JSON object longer than 1 MiB; write" in error_of(read_object, tmp_path / "object.json")


@pytest.mark.parametrize("reader", [read_items, read_object])
def test_a_file_that_cannot_be_read_is_an_input_error(tmp_path, reader, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 4)
    path = tmp_path / "q.json"
    assert error_of(reader, path) == f"{path}: no such file; check the path"
    assert "is a folder, not a file" in error_of(reader, tmp_path)
    path.write_bytes(b'[{"a": "caf\xe9"}]')
    assert error_of(reader, path) == f"{path}: byte 12 is not UTF-8; save the file as UTF-8 text"
    compressed = tmp_path / "q.json.gz"
    compressed.write_bytes(gzip.compress(b'[{"a": "b"}]')[:-9])
    assert error_of(reader, compressed).startswith(f"{compressed}: damaged gzip (")

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "open_bytes", refuse)
    assert error_of(reader, path) == f"{path}: cannot be read (Permission denied); check its permissions"


def test_the_head_is_what_can_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 4)
    (tmp_path / "q.json").write_bytes(b"\xef\xbb\xbf \n      {\xff")
    assert read_head(tmp_path / "q.json").startswith("{")
    assert read_head(tmp_path / "none.json") == read_head(tmp_path) == ""
