"""What a caller gives: one string is no list of strings, and every passage is one that a corpus may hold."""

import re

import numpy as np
import pytest

from rag_jax.corpus.passage import Passage
from rag_jax.errors import InputError
from rag_jax.pipeline import user_inputs

ALIVE = np.array([True, True, False, True])


def refused(what: str):
    return pytest.raises(InputError, match=f"^{re.escape(what)}")


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("who?", "questions is one string, 'who?'; give a list of strings"),
        (b"who?", "questions is one string"),
        (None, "questions is None; give a list of strings"),
        (3, "questions is 3; give a list of strings"),
        ({"who?"}, "questions is {'who?'}; give a list of strings"),
        ({"q": "who?"}, "questions is {'q': 'who?'}; give a list of strings"),
        (["who?", None], "questions: number 2 is None; give a list of strings"),
        ([b"who?"], "questions: number 1 is b'who?'"),
        (["\ud800"], 'number 1: "questions" holds half a surrogate pair'),
    ],
)
def test_what_is_no_list_of_strings_is_named(value: object, what: str) -> None:
    with refused(what):
        user_inputs.texts(value, "questions")


def test_lists_of_strings_of_any_kind_are_taken() -> None:
    for value in (["a", "b"], ("a", "b"), np.array(["a", "b"]), (each for each in "ab")):
        assert user_inputs.texts(value, "questions") == ["a", "b"]


def test_questions_are_not_empty() -> None:
    assert user_inputs.questions(["who?"]) == ["who?"]
    with refused("question 2 is empty; write one"):
        user_inputs.questions(["who?", " "])


def test_one_prefix_is_for_all_questions() -> None:
    assert user_inputs.prefixes("the", 2) == ["the", "the"]
    with refused("1 prefixes for 2 questions; give one for all, or for each"):
        user_inputs.prefixes(["the"], 2)


def test_ids_are_strings_or_whole_numbers() -> None:
    assert user_inputs.ids(["a", 3], "ids") == ["a", "3"]
    with refused("ids is one string, 'abc'; give a list of ids"):
        user_inputs.ids("abc", "ids")
    with refused('number 1: "ids" is null; write an id'):
        user_inputs.ids([None], "ids")


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ([[0, 1], [1]], "rows of different lengths; give K for each question, -1 for none"),
        ([[0.0, 1.0], [1.0, 0.0]], "rows of float64; give whole numbers, -1 for none"),
        ([[0, None], [1, 0]], "rows of object; give whole numbers"),
        ([["0"], ["1"]], "rows of <U1; give whole numbers"),
        ([[True], [False]], "rows of bool; give whole numbers"),
        ([0, 1], "rows of shape (2,) for 2 questions; give K rows for each of them"),
        ("01", "rows of shape () for 2 questions"),
        ([[0, 4], [1, 0]], "rows from 0 to 4, the index has 0 to 3; -1 is for none"),
        ([[0, -2], [1, 0]], "rows from -2 to 1, the index has 0 to 3"),
        ([[0, 2], [1, 0]], "rows: 2 was removed from the index"),
        ([[0, 1], [-1, -1]], "rows: question 2 has none; give it one"),
    ],
)
def test_rows_that_are_none_are_named(value: object, what: str) -> None:
    with refused(what):
        user_inputs.rows(value, 2, ALIVE)


def test_rows_may_be_lists() -> None:
    found = user_inputs.rows([[0, -1], [3, 1]], 2, ALIVE)
    assert found.tolist() == [[0, -1], [3, 1]]
    assert found.dtype == np.int32


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ([Passage("a", "", "x"), Passage("a", "", "y")], 'passage 2: the id "a" occurs twice'),
        ([Passage("a", "", "  ")], 'passage 1: "text" is empty'),
        ([Passage("a", "", None)], 'passage 1: "text" is missing'),  # type: ignore[arg-type]
        ([Passage("a", 3, "x")], 'passage 1: "title" is not a string'),  # type: ignore[arg-type]
        ([("a", "", "x")], "passage 1 is ('a', '', 'x'); give rag_jax.corpus.passage.Passage"),
        (["a text"], "passage 1 is 'a text'; give"),
        ([], "no passages; give one at least"),
        (None, "passages is None"),
    ],
)
def test_passages_that_no_corpus_may_hold_are_named(value, what: str) -> None:
    with refused(what):
        user_inputs.passages(value)


def test_a_missing_title_is_an_empty_one() -> None:
    assert user_inputs.passages([Passage("a", None, "x")]) == [Passage("a", "", "x")]  # type: ignore[arg-type]
    assert user_inputs.passages([Passage(3, "t", "x", "d")]) == [Passage("3", "t", "x", "d")]  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", None, True])
def test_counts_are_whole_numbers_from_1_on(value: object) -> None:
    with refused(f"batch_size is {value!r}; give "):
        user_inputs.count(value, "batch_size")


@pytest.mark.parametrize("value", [-1, 2**32, "a", 0.5])
def test_seeds_are_numbers(value: object) -> None:
    with refused(f"seed is {value!r}; give "):
        user_inputs.seed(value)
