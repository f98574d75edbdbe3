"""Abstaining: the best threshold against a search over all of them, and its effect."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_jax.data.questions import Question
from rag_jax.errors import InputError
from rag_jax.evaluation.metrics.no_answer import abstain, abstention_scores, answerable, best_threshold
from rag_jax.evaluation.predictions import Prediction

# (log-probability, score, answerable), with both kinds of question and many ties.
level = st.sampled_from([-8.0, -2.0, -1.0, -0.5, 0.0]) | st.floats(-10, 0)
score = st.sampled_from([0.0, 0.25, 0.5, 1.0])
rows = st.tuples(
    st.tuples(level, score, st.just(True)),
    st.tuples(level, score, st.just(False)),
    st.lists(st.tuples(level, score, st.booleans()), max_size=8),
).map(lambda parts: [parts[0], parts[1], *parts[2]])


def columns(rows) -> tuple[list[float], np.ndarray, np.ndarray]:
    log_probs, scores, kinds = zip(*rows, strict=True)
    return list(log_probs), np.array(scores), np.array(kinds)


def naive_score(rows, threshold: float) -> float:
    return sum(score if log_prob >= threshold else float(not kind) for log_prob, score, kind in rows) / len(rows)


@given(rows)
def test_no_other_threshold_is_better_and_of_equals_it_is_the_highest(rows):
    found = best_threshold(*columns(rows))
    scores = {threshold: naive_score(rows, threshold) for threshold in (math.inf, *(row[0] for row in rows))}
    assert found.score == max(scores.values())  # exact: quarters
    assert found.log_prob == max(threshold for threshold, value in scores.items() if value == found.score)
    assert found.score_without == pytest.approx(naive_score(rows, -math.inf))


@given(rows, level)
def test_the_effect_is_that_of_every_question(rows, threshold):
    effect = abstention_scores(*columns(rows), threshold)
    assert effect["abstaining"].mean() == pytest.approx(naive_score(rows, threshold))
    assert effect["always_answering"].tolist() == [score for _, score, _ in rows]
    assert effect["abstained"].tolist() == [float(log_prob < threshold) for log_prob, _, _ in rows]
    for name, kind in (("abstaining_answerable", True), ("abstaining_unanswerable", False)):
        assert effect[name][~np.isnan(effect[name])].mean() == pytest.approx(
            naive_score([row for row in rows if row[2] is kind], threshold)
        )
        assert np.isnan(effect[name]).tolist() == [row[2] is not kind for row in rows]


def test_improbable_answers_are_withheld():
    log_probs, correct, kinds = [-0.1, -0.2, -3.0, -4.0], np.array([1, 1, 0, 0]), np.array([True, True, False, True])
    threshold = best_threshold(log_probs, correct, kinds)
    assert threshold == (-0.2, 3 / 4, 2 / 4)
    predictions = [Prediction(str(number), "cat", log_prob) for number, log_prob in enumerate(log_probs)]
    answers = [prediction.answer for prediction in abstain(predictions, threshold.log_prob)]
    assert answers == ["cat", "cat", "", ""]
    assert [each.log_prob for each in abstain(predictions, math.inf)] == log_probs
    assert abstain(predictions, -math.inf) == predictions


def test_a_model_that_is_always_wrong_is_never_to_answer():
    assert best_threshold([-1.0, -2.0], np.zeros(2), np.array([True, False])) == (math.inf, 1 / 2, 0)


def test_a_log_probability_rounded_above_zero_reaches_a_threshold_of_zero():
    threshold = best_threshold([1e-7, -1.0], np.array([1, 0]), np.array([True, False]))
    assert threshold.log_prob == 0
    assert [each.answer for each in abstain([Prediction("1", "cat", 1e-7)], threshold.log_prob)] == ["cat"]


def test_a_question_whose_only_answer_is_empty_is_unanswerable():
    questions = [Question("1", "?", ("",)), Question("2", "?", ("", "cat")), Question("3", "?", ("cat",))]
    assert answerable(questions).tolist() == [False, True, True]
    with pytest.raises(InputError, match=r"^question '4' has no gold answers; write \"\" if it is unanswerable$"):
        answerable([*questions, Question("4", "?", ())])


@pytest.mark.parametrize(
    ("log_probs", "correct", "kinds", "message"),
    [
        (
            [-1, -2],
            [1, 1],
            [True, True],
            "all of the questions have an answer, so there is no threshold to choose; cal",
        ),
        ([-1, -2], [1, 1], [False, False], "all of the questions have none, so there is no threshold to choose; calib"),
        ([], [], [], "no questions to choose a threshold on; give some of both kinds"),
        ([-1], [1, 1], [True, False], "1 log-probabilities, 2 scores and 2 questions do not belong together; give one"),
        ([-1, -2], [1, 2], [True, False], "a score is not between 0 and 1; give exact match or F1"),
        ([-1, -2], [1, math.nan], [True, False], "a score is not between 0 and 1; give exact match or F1"),
        ([-1, None], [1, 1], [True, False], "answer 2 has no log-probability; "),
    ],
)
def test_questions_to_which_no_threshold_can_be_fitted_are_refused(log_probs, correct, kinds, message):
    with pytest.raises(InputError, match=f"^{message}"):
        best_threshold(log_probs, np.array(correct, np.float64), np.array(kinds, bool))


def test_an_answer_without_a_probability_cannot_be_judged():
    with pytest.raises(InputError, match=r"^answer 1 has no log-probability; "):
        abstain([Prediction("1", "cat")], -1)
