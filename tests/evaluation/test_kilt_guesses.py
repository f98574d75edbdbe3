"""KILT's guess files: what is written is read back, and what the script would not accept is refused."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora import one_folder
from rag_jax.corpus.passage import Passage
from rag_jax.errors import InputError
from rag_jax.evaluation.kilt_guesses import Guess, ranked_documents, read_guesses, write_guesses

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
ids = words.map(str.strip).filter(bool)
guess_lists = st.lists(
    st.builds(Guess, ids, words, st.lists(ids, max_size=4, unique=True).map(tuple)),
    min_size=1,
    max_size=4,
    unique_by=lambda guess: guess.id,
)


@pytest.mark.parametrize("name", ["guess.jsonl", "guess.jsonl.gz"])
@one_folder
@given(guesses=guess_lists)
def test_what_is_written_is_read_back(tmp_path, name, guesses):
    (tmp_path / name).unlink(missing_ok=True)
    write_guesses(tmp_path / name, guesses)
    assert read_guesses(tmp_path / name) == guesses


def test_a_line_is_as_kilt_writes_it(tmp_path):
    write_guesses(tmp_path / "guess.jsonl", [Guess("q1", "Jane Austen", ("15782",))])
    expected = {"id": "q1", "output": [{"answer": "Jane Austen", "provenance": [{"wikipedia_id": "15782"}]}]}
    assert json.loads((tmp_path / "guess.jsonl").read_text()) == expected
    with pytest.raises(InputError, match="exists already"):
        write_guesses(tmp_path / "guess.jsonl", [])


def test_ids_may_be_numbers_and_other_fields_are_ignored(tmp_path):
    provenance = [{"wikipedia_id": 7, "title": "T"}, {"wikipedia_id": " 8"}, {"wikipedia_id": "7"}]
    rows = [{"id": 1, "input": "?", "output": [{"answer": "a", "provenance": provenance}]}]
    rows.append({"id": "2", "output": [{"answer": ""}]})
    (tmp_path / "guess.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_guesses(tmp_path / "guess.jsonl") == [Guess("1", "a", ("7", "8")), Guess("2", "")]


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
        ('{"id": "1", "output": [{"answer": "a"}]}', 'the id "1" occurs twice; '),
        ("[]", "holds a list, not an object; "),
    ],
)
def test_a_bad_line_is_refused(tmp_path, line, what):
    path = tmp_path / "guess.jsonl"
    path.write_text('{"id": 1, "output": [{"answer": "a"}]}\n\n' + line + "\n")
    with pytest.raises(InputError, match=f"^{re.escape(f'{path}:3: {what}')}"):
        read_guesses(path)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "guess.jsonl").touch()
    with pytest.raises(InputError, match=r"guess.jsonl: holds no guesses; write one \{\"id\""):
        read_guesses(tmp_path / "guess.jsonl")
