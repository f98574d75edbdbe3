"""Calibration and selective prediction, against their definitions as plain loops."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_jax.errors import InputError
from rag_jax.evaluation.intervals import figure
from rag_jax.evaluation.metrics.calibration import (
    answer_probabilities,
    area_under_risk_coverage,
    brier_scores,
    expected_calibration_error,
    known_log_probs,
    reliability,
    risk_coverage,
)

# Many ties, and probabilities on the edges of bins.
answers = st.lists(
    st.tuples(st.sampled_from([0, 0.1, 0.25, 0.3, 0.5, 0.7, 1]) | st.floats(0, 1), st.integers(0, 1)),
    min_size=1,
    max_size=12,
)


def arrays(pairs) -> tuple[np.ndarray, np.ndarray]:
    p, correct = np.array(pairs, np.float64).T
    return p, correct


def everything(pairs) -> np.ndarray:
    return np.arange(len(pairs))


def naive_bins(pairs, bins: int) -> list[list[tuple[float, int]]]:
    """The pairs in each bin: (0, 1/M], (1/M, 2/M], …, and 0 in the first."""
    edges = np.linspace(0, 1, bins + 1)
    return [[(p, c) for p, c in pairs if edges[m] < p <= edges[m + 1] or (m == 0 and p == 0)] for m in range(bins)]


def naive_risks(pairs) -> list[float]:
    """The risk at each coverage, in this order."""
    return [sum(1 - c for _, c in pairs[:n]) / n for n in range(1, len(pairs) + 1)]


@given(answers, st.integers(1, 12))
def test_the_calibration_error_is_guos(pairs, bins):
    expected = 0.0
    for inside in naive_bins(pairs, bins):
        if inside:
            accuracy, confidence = (
                sum(column) / len(inside) for column in ([c for _, c in inside], [p for p, _ in inside])
            )
            expected += len(inside) / len(pairs) * abs(accuracy - confidence)
    assert expected_calibration_error(*arrays(pairs), bins)(everything(pairs)) == pytest.approx(expected)


@given(answers, st.integers(1, 12))
def test_the_reliability_table_has_every_bin(pairs, bins):
    table = reliability(*arrays(pairs), bins)
    assert [each.questions for each in table] == [len(inside) for inside in naive_bins(pairs, bins)]
    assert (table[0].low, table[-1].high) == (0, 1)
    for each, inside in zip(table, naive_bins(pairs, bins), strict=True):
        if inside:
            assert each.confidence == pytest.approx(sum(p for p, _ in inside) / len(inside))
            assert each.accuracy == pytest.approx(sum(c for _, c in inside) / len(inside))
        else:
            assert math.isnan(each.confidence)
            assert math.isnan(each.accuracy)


@given(answers)
def test_brier_scores_are_squared_errors(pairs):
    assert brier_scores(*arrays(pairs)).tolist() == pytest.approx([(p - c) ** 2 for p, c in pairs])


@given(st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.9]), st.integers(0, 1)), min_size=1, max_size=6))
def test_the_risk_is_the_mean_over_all_orders_of_equal_probabilities(pairs):
    orders = [
        order
        for order in itertools.permutations(pairs)
        if [p for p, _ in order] == sorted((p for p, _ in pairs), reverse=True)
    ]
    expected = np.mean([naive_risks(order) for order in orders], axis=0)
    curve = risk_coverage(*arrays(pairs))
    assert curve.risk.tolist() == pytest.approx(expected.tolist())
    assert curve.coverage.tolist() == [n / len(pairs) for n in range(1, len(pairs) + 1)]
    assert area_under_risk_coverage(*arrays(pairs))(everything(pairs)) == pytest.approx(expected.mean())


@given(answers, st.randoms())
def test_nothing_depends_on_the_order_of_the_questions(pairs, random):
    numbers = everything(pairs).tolist()
    random.shuffle(numbers)
    for statistic in (expected_calibration_error(*arrays(pairs)), area_under_risk_coverage(*arrays(pairs))):
        assert statistic(np.array(numbers)) == pytest.approx(statistic(everything(pairs)))


@given(answers, st.lists(st.integers(0, 10_000), min_size=1, max_size=12))
def test_a_statistic_of_a_sample_is_that_of_its_answers(pairs, draws):
    numbers = [draw % len(pairs) for draw in draws]
    sample = [pairs[number] for number in numbers]
    for statistic in (expected_calibration_error, area_under_risk_coverage):
        found = statistic(*arrays(pairs))(np.array(numbers))
        assert found == pytest.approx(statistic(*arrays(sample))(everything(sample)))


def test_perfect_confidence_has_no_error_and_puts_errors_last():
    p, correct = np.array([1.0, 0.0, 1.0, 0.0]), np.array([1, 0, 1, 0])
    assert expected_calibration_error(p, correct)(np.arange(4)) == 0
    assert brier_scores(p, correct).sum() == 0
    assert risk_coverage(p, correct).risk.tolist() == pytest.approx([0, 0, 1 / 3, 2 / 4])


def test_statistics_have_intervals():
    draw = np.random.default_rng(0)
    p = draw.random(200)
    correct = (draw.random(200) < p).astype(np.float64)
    for statistic, basic in (
        (expected_calibration_error(p, correct), True),
        (area_under_risk_coverage(p, correct), False),
    ):
        value, low, high, questions = figure(statistic, len(p), resamples=200, basic=basic)
        assert 0 <= low < value < high < 1
        assert questions == 200


def test_probabilities_are_exponentials_of_at_most_one():
    assert answer_probabilities([math.log(0.25), 0.0, 1e-7, -math.inf]).tolist() == pytest.approx([0.25, 1, 1, 0])
    assert known_log_probs(iter([-1.0, 1e-7])).tolist() == [-1, 0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "answer 2 has no log-probability; give log p"),
        (math.nan, "answer 2 has no log-probability; give log p"),
        (0.5, "answer 2: 0.5 is no log-probability; give natural logarithms, at most 0"),
    ],
)
def test_unknown_and_impossible_log_probabilities_are_refused(value, message):
    with pytest.raises(InputError, match=f"^{message}"):
        answer_probabilities([-1.0, value])


@pytest.mark.parametrize(
    "score", [expected_calibration_error, brier_scores, reliability, risk_coverage, area_under_risk_coverage]
)
@pytest.mark.parametrize(
    ("p", "correct", "message"),
    [
        ([0.5, 0.5], [1], "2 probabilities for 1 answers; give one per answer"),
        ([], [], "no answers to score; give one at least"),
        ([-0.5], [1], "a probability is not between 0 and 1; convert log-probabilities by answer_probabilities"),
        ([math.nan], [1], "a probability is not between 0 and 1; "),
        ([0.5], [0.8], r"an answer is neither correct \(1\) nor wrong \(0\); score answers by exact match"),
        ([0.5], [math.nan], "an answer is neither correct"),
    ],
)
def test_scores_that_cannot_be_are_refused(score, p, correct, message):
    with pytest.raises(InputError, match=f"^{message}"):
        score(np.array(p, np.float64), np.array(correct, np.float64))


@pytest.mark.parametrize("score", [expected_calibration_error, reliability])
def test_no_bins_are_refused(score):
    with pytest.raises(InputError, match=r"^0 bins are none; ask for one or more$"):
        score(np.array([0.5]), np.array([1.0]), 0)
