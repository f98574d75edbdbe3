"""Predictions in the formats of other evaluators."""

import json

import pytest

from rag_jax.corpus.passage import Passage
from rag_jax.data.questions import Question, read_question_file
from rag_jax.evaluation import exports
from rag_jax.evaluation.kilt_guesses import as_guess
from rag_jax.evaluation.predictions import Prediction

CHUNKS = Passage("n1", "Paris", "It has 7 people.", "12"), Passage("n2", "Paris", "It is old.", "12")
PREDICTIONS = [Prediction("a", "7", None, (), CHUNKS, (2.5, 1.0)), Prediction("b", "x", None, (), CHUNKS[1:])]
QUESTIONS = [Question("a", "how many", ("7",)), Question("b", "when", ("o.d",), regex=True)]


def test_a_trec_run_keeps_the_ranking_where_scores_are_not_known() -> None:
    assert list(exports.trec_run(PREDICTIONS)) == [
        "a Q0 n1 1 2.5 rag_jax\n",
        "a Q0 n2 2 1.0 rag_jax\n",
        "b Q0 n2 1 -1.0 rag_jax\n",
    ]


def test_equal_scores_would_be_reordered_by_trec_eval_and_become_ranks() -> None:
    for scores in ((2.5, 2.5), (1.0, 2.0), (float("nan"), 0.0)):
        lines = list(exports.trec_run([PREDICTIONS[0]._replace(scores=scores)]))
        assert [line.split()[4] for line in lines] == ["-1.0", "-2.0"]


@pytest.mark.parametrize("odd", [Prediction("a b", "x", retrieved=CHUNKS), Prediction("", "x", retrieved=CHUNKS)])
def test_an_id_with_a_space_cannot_be_in_a_trec_run(odd: Prediction, capsys) -> None:
    assert list(exports.trec_run([*PREDICTIONS, odd])) == []
    assert "which a TREC run cannot hold" in capsys.readouterr().err


def test_kilts_guesses_have_every_document_once() -> None:
    rows = [json.loads(line) for line in exports.kilt_guesses(PREDICTIONS)]
    assert [as_guess(row, "here") for row in rows] == [("a", "7", ("12",)), ("b", "x", ("12",))]


def test_dprs_output_says_which_passages_have_an_answer(tmp_path) -> None:
    (tmp_path / "dpr.json").write_text("".join(exports.dpr_results(QUESTIONS, PREDICTIONS)))
    rows = json.loads((tmp_path / "dpr.json").read_text())
    assert [[context["has_answer"] for context in row["ctxs"]] for row in rows] == [[True, False], [True]]
    assert rows[0]["ctxs"][0] == {
        "id": "n1",
        "title": "Paris",
        "text": "It has 7 people.",
        "score": "2.5",
        "has_answer": True,
    }
    assert [question.passage_ids for question in read_question_file(tmp_path / "dpr.json").questions] == [
        ("n1", "n2"),
        ("n2",),
    ]


def test_a_question_to_which_there_is_no_answer_is_not_in_dprs_output(tmp_path, capsys) -> None:
    unanswerable = [QUESTIONS[0]._replace(answers=("",)), QUESTIONS[1]]
    (tmp_path / "dpr.json").write_text("".join(exports.dpr_results(unanswerable, PREDICTIONS)))
    (left,) = read_question_file(tmp_path / "dpr.json").questions
    assert (left.id, left.answers) == (QUESTIONS[1].id, QUESTIONS[1].answers)
    assert "dpr.json leaves out 1 unanswerable questions: its format needs an answer" in capsys.readouterr().err


def test_where_nothing_was_retrieved_there_is_nothing_to_export() -> None:
    assert exports.of(QUESTIONS, [Prediction("a", "7"), Prediction("b", "x")]) == {}
