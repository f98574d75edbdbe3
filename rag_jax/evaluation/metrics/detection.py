"""Detection: finding the positive examples, here texts to be moderated, by a score and a threshold.

`positive` says which examples are, `score` how likely each is held to be. Statistics are functions of example numbers,
for the bootstrap of `rag_jax.evaluation.intervals.figure`; they are NaN where nothing is positive.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from rag_jax.evaluation.intervals import Statistic


class Curve(NamedTuple):
    """Precision and recall at every threshold: an example is detected if its score reaches it."""

    threshold: Float[np.ndarray, " n"]  # ascending, each a score that occurs
    precision: Float[np.ndarray, " n"]
    recall: Float[np.ndarray, " n"]


def curve(positive: Bool[np.ndarray, " B"], score: Float[np.ndarray, " B"]) -> Curve:
    """Precision and recall at every score that occurs; recall is NaN where nothing is positive."""
    order = np.argsort(-score, kind="stable")
    descending, hits = score[order], np.cumsum(positive[order])
    last = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))  # of equal scores, detected together
    total = positive.sum()
    recall = hits[last] / total if total else np.full(len(last), math.nan)
    return Curve(descending[last][::-1], (hits[last] / (last + 1))[::-1], recall[::-1])


def average_precision(positive: Bool[np.ndarray, " B"], score: Float[np.ndarray, " B"]) -> Statistic:
    """The area under the precision-recall curve as a sum of steps: `sum_n (R_n - R_n-1) P_n`, without interpolation.

    This is scikit-learn's `average_precision_score`.
    """

    def statistic(numbers: Int[np.ndarray, " n"]) -> float:
        found = curve(positive[numbers], score[numbers])
        return float(-np.sum(np.diff(np.append(found.recall, 0.0)) * found.precision))

    return statistic


def precision(positive: Bool[np.ndarray, " B"], detected: Bool[np.ndarray, " B"]) -> Statistic:
    """The fraction of the detected examples that are positive; NaN if none is detected."""
    return lambda numbers: _ratio((positive & detected)[numbers].sum(), detected[numbers].sum())


def recall(positive: Bool[np.ndarray, " B"], detected: Bool[np.ndarray, " B"]) -> Statistic:
    """The fraction of the positive examples that are detected."""
    return lambda numbers: _ratio((positive & detected)[numbers].sum(), positive[numbers].sum())


def f1(positive: Bool[np.ndarray, " B"], detected: Bool[np.ndarray, " B"]) -> Statistic:
    """The harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN)."""
    return lambda n: _ratio(2 * (positive & detected)[n].sum(), positive[n].sum() + detected[n].sum())


def _ratio(part: int, whole: int) -> float:
    return float(part / whole) if whole else math.nan
