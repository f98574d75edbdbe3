"""Precision, recall and average precision against naive counts and published values."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from rag_jax.evaluation.intervals import figure
from rag_jax.evaluation.metrics import detection

EXAMPLES = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=20)


def arrays(examples):
    return np.array([each for each, _ in examples]), np.array([score / 5 for _, score in examples])


@given(EXAMPLES)
def test_the_curve_counts_what_reaches_each_threshold(examples):
    positive, score = arrays(examples)
    found = detection.curve(positive, score)
    assert found.threshold.tolist() == sorted({*score.tolist()})
    for threshold, precision, recall in zip(*found, strict=True):
        detected = [each for each, own in zip(positive, score, strict=True) if own >= threshold]
        assert precision == pytest.approx(sum(detected) / len(detected))
        if positive.any():
            assert recall == pytest.approx(sum(detected) / positive.sum())
        else:
            assert np.isnan(recall)


@given(EXAMPLES)
def test_average_precision_is_the_sum_of_the_steps(examples):
    positive, score = arrays(examples)
    found = detection.average_precision(positive, score)(np.arange(len(positive)))
    if not positive.any():
        assert np.isnan(found)
        return
    total, before = 0.0, 0.0
    for threshold in sorted({*score.tolist()}, reverse=True):
        hits = sum(bool(each) for each, own in zip(positive, score, strict=True) if own >= threshold)
        recall, precision = hits / positive.sum(), hits / sum(own >= threshold for own in score)
        total, before = total + (recall - before) * precision, recall
    assert found == pytest.approx(total)


def test_average_precision_as_scikit_learn_documents_it():
    # y_true = [0, 0, 1, 1], y_scores = [0.1, 0.4, 0.35, 0.8]: average_precision_score is 0.83…
    positive, score = np.array([False, False, True, True]), np.array([0.1, 0.4, 0.35, 0.8])
    assert detection.average_precision(positive, score)(np.arange(4)) == pytest.approx(0.8333, abs=1e-4)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=20))
def test_precision_recall_and_f1_count(pairs):
    positive, detected = (np.array(each) for each in zip(*pairs, strict=True))
    numbers, hits = np.arange(len(pairs)), sum(a and b for a, b in pairs)

    def expected(part, whole):
        return pytest.approx(part / whole) if whole else pytest.approx(np.nan, nan_ok=True)

    assert detection.precision(positive, detected)(numbers) == expected(hits, sum(b for _, b in pairs))
    assert detection.recall(positive, detected)(numbers) == expected(hits, sum(a for a, _ in pairs))
    assert detection.f1(positive, detected)(numbers) == expected(2 * hits, sum(map(sum, pairs)))


def test_the_interval_is_of_the_resamples_with_a_positive_example():
    positive = np.array([True, False, False])
    found = figure(detection.recall(positive, positive), 3)
    assert found == (1.0, 1.0, 1.0, 3)
    none = figure(detection.recall(~positive & False, positive), 3)
    assert np.isnan([none.value, none.low, none.high]).all()
