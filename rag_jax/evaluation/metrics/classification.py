"""Scores of answers that are labels, as in fact verification: accuracy, macro-F1, and what is confused with what.

Labels are equal if they agree but for case, white space, and punctuation at the ends: a model may generate "Supports."
for "SUPPORTS".
"""

import string
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rag_jax.errors import InputError
from rag_jax.evaluation.intervals import Statistic


class Confusion(NamedTuple):
    """How often each label was predicted for each gold label."""

    labels: tuple[str, ...]  # normalised, of gold and predictions, sorted
    counts: Int[np.ndarray, "L L"]  # rows: gold; columns: predicted


def normalize_label(text: str) -> str:
    """Lower case, single spaces, no punctuation at the ends, unless nothing else is left.

    >>> normalize_label(" Not  Supported."), normalize_label("A"), normalize_label("+")
    ('not supported', 'a', '+')
    """
    words = " ".join(text.lower().split())
    return words.strip(string.punctuation + " ") or words


def accuracy_scores(predictions: Sequence[str], gold: Sequence[str]) -> Float[np.ndarray, " B"]:
    """1 where the predicted label is the gold one, else 0.

    Raises `InputError` for other than one prediction per question.
    """
    _require_pairs(predictions, gold)
    pairs = zip(predictions, gold, strict=True)
    return np.array([normalize_label(predicted) == normalize_label(label) for predicted, label in pairs], np.float64)


def macro_f1(predictions: Sequence[str], gold: Sequence[str], labels: Collection[str] | None = None) -> Statistic:
    """The mean F1 of the labels, as a statistic of the questions with given numbers.

    The F1 of a label is 2 TP / (2 TP + FP + FN), 0 if it is neither gold nor predicted. This is scikit-learn's
    `f1_score(average="macro", zero_division=0)`.

    Args:
        predictions: the predicted label of each question.
        gold: the gold label of each question.
        labels: the labels to average over; None: all that occur among these questions, gold or predicted, so that any
            other text that a model generates is one more label, with an F1 of 0.

    Raises `InputError` for other than one prediction per question, and for an empty set of labels.
    """
    counted = None if labels is None else {normalize_label(label) for label in labels}
    if counted is not None and not counted:
        raise InputError("macro-F1 over no labels; name one at least, or leave labels out")
    names, golds, predicted = _codes(predictions, gold, counted or ())
    chosen = None if counted is None else np.isin(names, sorted(counted))

    def statistic(numbers: Int[np.ndarray, " n"]) -> float:
        counts = _count(golds[numbers], predicted[numbers], len(names))
        twice = counts.sum(0) + counts.sum(1)  # 2 TP + FP + FN
        f1 = 2 * np.diagonal(counts) / np.maximum(twice, 1)
        return float(np.mean(f1[twice > 0 if chosen is None else chosen]))

    return statistic


def confusion(predictions: Sequence[str], gold: Sequence[str]) -> Confusion:
    """Counts of gold and predicted labels. Raises `InputError` for other than one prediction per question."""
    names, golds, predicted = _codes(predictions, gold)
    return Confusion(tuple(names), _count(golds, predicted, len(names)))


def _codes(
    predictions: Sequence[str], gold: Sequence[str], more: Collection[str] = ()
) -> tuple[list[str], Int[np.ndarray, " B"], Int[np.ndarray, " B"]]:
    """The labels, sorted, and the number of each question's gold and predicted one among them."""
    _require_pairs(predictions, gold)
    predicted_labels, gold_labels = ([normalize_label(text) for text in texts] for texts in (predictions, gold))
    names = sorted({*predicted_labels, *gold_labels, *more})
    number = {name: n for n, name in enumerate(names)}
    golds, predicted = (np.array([number[x] for x in of], np.int64) for of in (gold_labels, predicted_labels))
    return names, golds, predicted


def _count(gold: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], labels: int) -> Int[np.ndarray, "L L"]:
    return np.bincount(gold * labels + predicted, minlength=labels * labels).reshape(labels, labels)


def _require_pairs(predictions: Sequence[str], gold: Sequence[str]) -> None:
    if len(predictions) != len(gold):
        raise InputError(f"{len(predictions)} predictions for {len(gold)} questions; give one per question")
