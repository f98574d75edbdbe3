"""Hard negatives are read and checked; in a batch, no question is contrasted with a passage that is right for it."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_jax.contrastive.negatives import Candidates, candidates, log_q, read_negatives, resolve, warn_of_missing
from rag_jax.corpus.passage import Passage
from rag_jax.data.jsonl import write_jsonl
from rag_jax.data.question import Question
from rag_jax.errors import InputError
from rag_jax.evaluation.metrics.answers import has_answer
from rag_jax.index.store import without_vectors

QUESTIONS = [
    Question("q1", "who wrote emma", ("Jane Austen",), ("p0", "p1")),
    Question("q2", "who wrote ulysses", ("Joyce",), ("p2",)),
    Question("q3", "when", ("1815",), ("p3", "gone")),
]
STORE = without_vectors(
    [Passage("p0", "Emma", "by Jane Austen"), *(Passage(f"p{i}", "", f"text {i}") for i in range(1, 6))]
)


def written(tmp_path: Path, *rows: dict | str) -> Path:
    path = tmp_path / "negatives.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_negatives_are_read_by_question(tmp_path: Path) -> None:
    rows = (
        {"id": "q2", "negative_ids": ["p5", 4, "p5"], "scores": [2.0, 1.0, 1.0], "positive_score": None},
        {"id": "q1", "negative_ids": []},
        {"id": "q3", "negative_ids": ["p0"]},
    )
    expected = {"q2": ("p5", "4"), "q1": (), "q3": ("p0",)}
    assert read_negatives(written(tmp_path, *rows), QUESTIONS) == expected
    write_jsonl(tmp_path / "negatives.jsonl.gz", rows[:1])
    assert read_negatives(tmp_path / "negatives.jsonl.gz", QUESTIONS[1:2]) == {"q2": ("p5", "4")}


def test_questions_without_negatives_are_counted_where_others_have_some(capsys) -> None:
    for negatives, told in (
        ({"q2": ("p5",), "q1": (), "q3": ("p0",)}, "warning: mined.jsonl: 1 of 3 questions have no hard negatives\n"),
        ({"q1": ("p5",), "q2": ("p5",), "q3": ("p0",)}, ""),
        ({}, ""),  # refused elsewhere
    ):
        warn_of_missing(Path("mined.jsonl"), QUESTIONS, negatives)
        assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"id": "q9", "negative_ids": ["p5"]}, 'no question has the id "q9"; mine them'),
        ({"id": "q2", "negative_ids": ["p5"]}, 'the id "q2" occurs twice'),
        ({"negative_ids": ["p5"]}, '"id" is null; write an id'),
        ({"id": "q1"}, '"q1" has no "negative_ids"; write a list of ids'),
        ({"id": "q1", "negative_ids": "p5"}, '"negative_ids" is not a list'),
        ({"id": "q1", "negative_ids": [1.5]}, '"negative_ids" is a number; write an id'),
        ({"id": "q1", "negative_ids": ["p5", "p1"]}, '"q1" has the gold passage "p1" among its negatives; remove it'),
        ("[]", "holds a list, not an object"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(tmp_path: Path, row, what: str) -> None:
    path = written(tmp_path, {"id": "q2", "negative_ids": ["p5"]}, row)
    with pytest.raises(InputError) as caught:
        read_negatives(path, QUESTIONS)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    with pytest.raises(InputError, match="holds no hard negatives; mine them with rag-jax mine"):
        read_negatives(path, QUESTIONS)


def test_negatives_become_rows_of_the_index() -> None:
    negatives = {"q1": ("p5", "p2"), "q3": ()}
    assert resolve(QUESTIONS, negatives, STORE, "f.jsonl") == {"q1": [5, 2], "q3": []}
    assert resolve(QUESTIONS, {}, STORE, "f.jsonl") == {}


@pytest.mark.parametrize(
    ("negatives", "what"),
    [
        (
            {"q1": ("p5",), "q2": ("p1", "x1", "x2")},
            '"q2" has the hard negative "x1", which is no passage of the index (2 of 4 ids are not)',
        ),
        ({"q2": ("p2",)}, '"q2" has the gold passage "p2" among its negatives'),
    ],
)
def test_negatives_that_the_index_lacks_and_gold_ones_are_refused(negatives, what: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve(QUESTIONS, negatives, STORE, "f.jsonl")
    assert str(caught.value).startswith(f"f.jsonl: {what}")


def test_a_removed_passage_is_no_negative() -> None:
    with pytest.raises(InputError, match='"p5", which is no passage of the index'):
        resolve(QUESTIONS, {"q1": ("p5",)}, STORE.remove_rows([5]), "f.jsonl")


def naive_candidates(rows, gold, holds) -> list[list[bool]]:
    """Column j of question i, one by one."""
    mask = []
    for i, own in enumerate(gold):
        right = {rows[i], *own}
        mask.append([j == i or (row >= 0 and row not in right and not holds(i, row)) for j, row in enumerate(rows)])
    return mask


@st.composite
def batches(draw):
    """The rows of B gold passages and of hard negatives (-1: missing) among 6, and the gold rows of each question."""
    size = draw(st.integers(1, 4))
    row = st.integers(0, 5)
    rows = draw(st.lists(row, min_size=size, max_size=size)) + draw(st.lists(st.integers(-1, 5), max_size=6))
    return rows, draw(st.lists(st.lists(row, max_size=4), min_size=size, max_size=size))


@settings(max_examples=50, deadline=None)
@given(batches(), st.booleans(), st.data())
def test_candidates_are_those_of_plain_loops(batch, answers: bool, data) -> None:
    rows, gold = batch
    held = [data.draw(st.sets(st.integers(0, 5))) if answers else set() for _ in gold]
    holding = np.asarray([[row in own for row in rows] for own in held])
    expected = naive_candidates(rows, gold, lambda i, row: row in held[i])
    np.testing.assert_array_equal(candidates(np.asarray(rows), gold, holding if answers else None), expected)


@pytest.mark.parametrize("answers", [False, True])
def test_the_candidates_of_a_run_know_its_answers_and_gold_passages(answers: bool) -> None:
    questions = [Question("0", "?", ("Jane Austen",)), Question("1", "?", ("text", "nothing")), Question("2", "?", ())]
    gold = [[0, 1], [2], [3]]
    numbers, rows = np.asarray([2, 0, 1]), np.asarray([3, 1, 2, 0, 4, -1])

    def holds(i: int, row: int) -> bool:
        return answers and has_answer(STORE.passages[row].text, questions[numbers[i]].answers)

    expected = naive_candidates(rows.tolist(), [gold[number] for number in numbers], holds)
    assert np.sum(expected) == (11 if answers else 14)
    run = Candidates(questions, gold, STORE, answers)
    for _ in range(2):
        np.testing.assert_array_equal(run(numbers, rows), expected)


def test_a_question_without_its_gold_passage_is_an_error() -> None:
    with pytest.raises(ValueError, match="without its gold passage"):
        candidates(np.asarray([1, -1, 2]), [[1], [2]])


lists = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=4, unique=True), min_size=1, max_size=5)


@settings(max_examples=50, deadline=None)
@given(lists, st.integers(1, 4), st.integers(0, 3), st.data())
def test_log_q_is_that_of_plain_loops(gold, batch_size: int, hard_negatives: int, data) -> None:
    negatives = [data.draw(st.lists(st.integers(0, 9), max_size=4, unique=True)) for _ in gold]
    times = dict.fromkeys(range(10), 0.0)
    for own, wrong in zip(gold, negatives, strict=True):
        for row in own:
            times[row] += 1 / len(own)
        for row in wrong:
            times[row] += min(hard_negatives, len(wrong)) / len(wrong)
    drawn = [row for row, count in times.items() if count]
    found = log_q(gold, batch_size, negatives, hard_negatives)(np.asarray([*drawn, -1]))
    expected = [np.log(min(1, batch_size / len(gold) * times[row])) for row in drawn]
    np.testing.assert_allclose(found, [*expected, 0.0], rtol=1e-6, atol=1e-6)
    assert found.dtype == np.float32


def test_log_q_of_a_passage_that_is_never_drawn_is_an_error() -> None:
    with pytest.raises(ValueError, match="never drawn"):
        log_q([[1], [2]], 2)(np.asarray([1, 3]))
