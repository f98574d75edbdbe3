"""Every JSON file that the library reads, changed in one place: one line says what is wrong, or the result is right."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from json_readers import READERS
from mutations import every_mutation, mutated
from promises import kept

PER_FILE = 300


@pytest.mark.parametrize("name", READERS)
def test_a_document_that_is_right_is_read(tmp_path: Path, name: str) -> None:
    reader = READERS[name]
    (valid,) = every_mutation(reader.document, 0)
    assert not kept(reader, valid, tmp_path) or name in ("shards", "towers")  # which name files that are not there


@pytest.mark.parametrize("name", READERS)
def test_some_changed_documents(tmp_path: Path, name: str) -> None:
    for number, text in enumerate(every_mutation(READERS[name].document, 12)):
        kept(READERS[name], text, tmp_path / str(number))


@pytest.mark.faults
@pytest.mark.parametrize("name", READERS)
@settings(max_examples=PER_FILE, deadline=None, derandomize=True)
@given(data=st.data())
def test_many_changed_documents(name: str, data: st.DataObject) -> None:
    text = data.draw(mutated(READERS[name].document))
    with tempfile.TemporaryDirectory() as folder:
        kept(READERS[name], text, Path(folder))
