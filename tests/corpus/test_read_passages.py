"""Passages as they are read and cut for a run; the kinds of corpora are tested in `corpus/`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora import corpora, one_folder
from rag_jax.corpus import Chunker, read_corpus, read_passages
from rag_jax.corpus.passage import Passage
from rag_jax.data.jsonl import write_jsonl
from rag_jax.errors import InputError


def split(passages, size):
    return [piece for passage in passages for piece in Chunker(size).chunks(passage)]


@one_folder
@given(passages=corpora)
def test_passages_are_read_as_they_stand(tmp_path, passages):
    path = tmp_path / "corpus.jsonl"
    write_jsonl(path, (passage._asdict() for passage in passages))
    assert list(read_passages(path)) == list(read_corpus(path)) == passages


def test_the_first_bad_row_is_refused(tmp_path):
    (tmp_path / "corpus.jsonl").write_text('{"text": "one"}\n{"text": ""}\n')
    reading = read_passages(tmp_path / "corpus.jsonl")
    assert next(reading) == Passage("1", "", "one")
    with pytest.raises(InputError, match=r'corpus\.jsonl:2: "text" is empty; '):
        next(reading)


def test_passages_without_words_are_refused(tmp_path):
    with pytest.raises(InputError, match="passages of 0 words cannot be cut; ask for 1 word at least"):
        list(read_passages(tmp_path / "corpus.jsonl", 0))


@given(passages=corpora, size=st.integers(1, 3))
def test_only_the_long_ones_are_cut_and_only_once(passages, size):
    pieces = list(split(passages, size))
    assert all(len(piece.text.split()) <= size for piece in pieces)
    short = {p for p in passages if len(p.text.split()) <= size and all(len(word) <= 8 for word in p.text.split())}
    assert short <= set(pieces)
    assert {p.document or p.id for p in pieces} == {p.id for p in passages}
    assert list(split(pieces, size)) == pieces


def test_the_pieces_of_a_passage_are_numbered_from_its_id(tmp_path):
    passages = [Passage("a", "A", "one  two"), Passage("b", "B", "one two\nthree four five")]
    write_jsonl(tmp_path / "corpus.jsonl", (passage._asdict() for passage in passages))
    assert list(read_passages(tmp_path / "corpus.jsonl", 2)) == [
        Passage("a", "A", "one  two"),
        Passage("b", "B", "one two", "b"),
        Passage("b#2", "B", "three four", "b"),
        Passage("b#3", "B", "five", "b"),
    ]
