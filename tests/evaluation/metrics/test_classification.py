"""Accuracy, macro-F1 and confusion counts, against plain loops."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_jax.errors import InputError
from rag_jax.evaluation.intervals import figure
from rag_jax.evaluation.metrics import classification
from rag_jax.evaluation.metrics.classification import accuracy_scores, confusion, macro_f1

labels = st.sampled_from(["yes", "no", "unknown", "other"])
pairs = st.lists(st.tuples(labels, labels), min_size=1, max_size=12)


def naive_f1(predictions: list[str], gold: list[str], label: str) -> float:
    """Precision and recall of one label; 0 where either has nothing to count, as in scikit-learn's zero_division=0."""
    true = sum(p == g == label for p, g in zip(predictions, gold, strict=True))
    precision = true / predictions.count(label) if label in predictions else 0.0
    recall = true / gold.count(label) if label in gold else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_the_examples_in_the_docstrings():
    assert doctest.testmod(classification).failed == 0


@given(pairs, st.randoms(use_true_random=False))
def test_macro_f1_is_the_mean_over_the_labels_that_occur(pairs, draw):
    numbers = [draw.randrange(len(pairs)) for _ in pairs]  # a bootstrap sample
    statistic = macro_f1(*zip(*pairs, strict=True))
    predictions, gold = ([pairs[number][side] for number in numbers] for side in (0, 1))
    expected = [naive_f1(predictions, gold, label) for label in {*predictions, *gold}]
    assert statistic(np.array(numbers)) == pytest.approx(sum(expected) / len(expected))


@given(pairs, st.sets(labels, min_size=1))
def test_macro_f1_over_given_labels_counts_absent_ones_as_0(pairs, chosen):
    predictions, gold = map(list, zip(*pairs, strict=True))
    expected = [naive_f1(predictions, gold, label) for label in chosen]
    statistic = macro_f1(predictions, gold, {label.upper() for label in chosen})
    assert statistic(np.arange(len(pairs))) == pytest.approx(sum(expected) / len(expected))


@given(pairs)
def test_confusion_counts_every_pair(pairs):
    predictions, gold = zip(*pairs, strict=True)
    found = confusion(predictions, gold)
    assert list(found.labels) == sorted({*predictions, *gold})
    for row, gold_label in enumerate(found.labels):
        for column, predicted in enumerate(found.labels):
            assert found.counts[row, column] == pairs.count((predicted, gold_label))
    assert np.trace(found.counts) == accuracy_scores(predictions, gold).sum()


def test_labels_differ_only_by_more_than_case_space_and_punctuation_at_the_ends():
    predictions = ["Supports.", " not   enough INFO", "A", "", "+", "", "not-supported"]
    gold = ["SUPPORTS", "NOT ENOUGH INFO", "the", "a", "-", "", "not supported"]
    np.testing.assert_array_equal(accuracy_scores(predictions, gold), [1, 1, 0, 0, 0, 1, 0])


def test_macro_f1_has_a_bootstrap_interval():
    predictions, gold = ["yes", "no"] * 10, ["yes"] * 10 + ["no"] * 10
    found = figure(macro_f1(predictions, gold), 20, resamples=50)
    assert found.value == pytest.approx(1 / 2)
    assert found.low < found.value < found.high


def test_other_than_one_prediction_per_question_is_an_input_error():
    for score in (accuracy_scores, macro_f1, confusion):
        with pytest.raises(InputError, match=r"^2 predictions for 1 questions; give one per question$"):
            score(["yes", "no"], ["yes"])
    with pytest.raises(InputError, match=r"^macro-F1 over no labels; name one at least, or leave labels out$"):
        macro_f1(["yes"], ["yes"], [])
