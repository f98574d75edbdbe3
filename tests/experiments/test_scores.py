"""Scores of several runs, summarised and compared."""

import math

import numpy as np
import pytest

from rag_jax.data.questions import Question
from rag_jax.experiments import scores


def test_a_summary_is_over_runs_and_over_questions() -> None:
    array = np.array([[1.0, 0.0, 1.0, np.nan], [1.0, 0.0, 0.0, np.nan]])
    found = scores.summarise(array)
    runs = [(1 + 0 + 1) / 3, (1 + 0 + 0) / 3]
    assert found[:3] == pytest.approx((sum(runs) / 2, min(runs), max(runs)))
    assert 0 <= found.low <= found.mean <= found.high <= 1


def test_a_summary_of_nothing_is_not_a_number() -> None:
    assert all(map(math.isnan, scores.summarise(np.full((2, 3), np.nan))))


def test_the_p_value_is_that_of_the_means_over_the_runs() -> None:
    one, other = np.ones((2, 10)), np.zeros((2, 10))
    assert scores.p_value(one, other) == pytest.approx(2 / 2**10)  # all signs alike
    assert scores.p_value(one, one) == 1
    cancelling = np.array([[1.0] * 5 + [0.0] * 5, [0.0] * 5 + [1.0] * 5])
    assert scores.p_value(cancelling, np.full((2, 10), 0.5)) == 1


def test_regular_expressions_match_the_whole_answer(trained) -> None:
    rag = trained[0]
    text = "what colour is Norburg"
    answer = rag.answer([text])[0].text
    asked = [
        Question("1", text, (answer,)),
        Question("2", text, ("purple",)),
        Question("3", text, (f"{answer[0]}.*",), regex=True),
        Question("4", text, (answer[0],), regex=True),
    ]
    np.testing.assert_array_equal(scores.exact_matches(rag, asked), [1, 0, 1, 0])
