"""KILT's guesses: what is written is read back, and what the script would not accept is refused."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_jax.corpus.passage import Passage
from rag_jax.errors import InputError
from rag_jax.evaluation.kilt_guesses import Guess, as_guess, guess_row, ranked_documents

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
ids = words.map(str.strip).filter(bool)
guesses = st.builds(Guess, ids, words, st.lists(ids, max_size=4, unique=True).map(tuple))


@given(guess=guesses)
def test_what_is_written_is_read_back(guess):
    assert as_guess(json.loads(json.dumps(guess_row(guess))), "here") == guess


def test_a_row_is_as_kilt_writes_it():
    expected = {"id": "q1", "output": [{"answer": "Jane Austen", "provenance": [{"wikipedia_id": "15782"}]}]}
    assert guess_row(Guess("q1", "Jane Austen", ("15782",))) == expected


def test_ids_may_be_numbers_and_other_fields_are_ignored():
    provenance = [{"wikipedia_id": 7, "title": "T"}, {"wikipedia_id": " 8"}, {"wikipedia_id": "7"}]
    row = {"id": 1, "input": "?", "output": [{"answer": "a", "provenance": provenance}]}
    assert as_guess(row, "here") == Guess("1", "a", ("7", "8"))
    assert as_guess({"id": "2", "output": [{"answer": ""}]}, "here") == Guess("2", "")


def test_documents_are_those_of_the_passages_each_once():
    passages = [Passage("3", "", "x", "d"), Passage("1", "", "y"), Passage("4", "", "z", "d"), Passage("d", "", "w")]
    assert ranked_documents(passages) == ("d", "1")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"id": "2"}', '"output" is not a list of objects; write it as KILT\'s files do'),
        ('{"id": "2", "output": ["a"]}', '"output" is not a list of objects; '),
        ('{"id": "2", "output": []}', '"output" holds 0 answers; write exactly one, the system\'s guess'),
        ('{"id": "2", "output": [{"answer": "a"}, {"answer": "b"}]}', '"output" holds 2 answers; write exactly one'),
        ('{"id": "2", "output": [{}]}', '"answer" is missing or not a string; write it as a string, "" for no answer'),
        ('{"id": "2", "output": [{"answer": 3}]}', '"answer" is missing or not a string; '),
        ('{"id": "2", "output": [{"answer": "\\ud800"}]}', '"answer" holds half a surrogate pair; '),
        ('{"id": "2", "output": [{"answer": "a", "provenance": {}}]}', '"provenance" is not a list of objects; '),
        (
            '{"id": "2", "output": [{"answer": "a", "provenance": [{"title": "T"}]}]}',
            '"wikipedia_id" is null; write an id',
        ),
        ('{"output": [{"answer": "a"}]}', '"id" is null; write an id'),
    ],
)
def test_a_bad_row_is_refused(line, what):
    with pytest.raises(InputError, match=f"^{re.escape(f'FILE:3: {what}')}"):
        as_guess(json.loads(line), "FILE:3")
