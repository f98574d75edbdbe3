"""Calibration: whether an answer's probability says how likely it is to be correct.

`p` is the probability p(y|x) of each answer, `correct` is 1 where the answer is correct and 0 elsewhere (exact match).
Statistics are functions of question numbers, for the bootstrap of `rag_jax.evaluation.intervals.figure`.
"""

import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rag_jax.errors import InputError
from rag_jax.evaluation.intervals import Statistic

BINS = 10  # of equal width
ROUNDING = 1e-3  # by how much a log-probability may exceed 0, in nats


class Bin(NamedTuple):
    """The answers whose probability is in (low, high]; the first bin also holds probability 0."""

    low: float
    high: float
    questions: int
    confidence: float  # the mean probability; NaN for an empty bin
    accuracy: float  # the fraction of correct answers; NaN for an empty bin


class RiskCoverage(NamedTuple):
    """The risk at each coverage, if the most probable answers are given first."""

    coverage: Float[np.ndarray, " B"]  # 1/B, 2/B, …, 1: the fraction of questions that are answered
    risk: Float[np.ndarray, " B"]  # the fraction of wrong answers among them


def known_log_probs(log_probs: Iterable[float | None]) -> Float[np.ndarray, " B"]:
    """log p(y|x) of each answer, at most 0.

    Raises `InputError` for a log-probability that is not known (None or NaN), or above 0 by more than rounding.
    """
    log_probs = list(log_probs)
    for number, log_prob in enumerate(log_probs, start=1):
        if log_prob is None or math.isnan(log_prob):
            raise InputError(f"answer {number} has no log-probability; give log p(y|x) of every answer")
        if log_prob > ROUNDING:
            raise InputError(f"answer {number}: {log_prob} is no log-probability; give natural logarithms, at most 0")
    return np.minimum(np.array(log_probs, np.float64), 0.0)


def answer_probabilities(log_probs: Iterable[float | None]) -> Float[np.ndarray, " B"]:
    """p(y|x) of each answer. Raises `InputError` as `known_log_probs`."""
    return np.exp(known_log_probs(log_probs))


def expected_calibration_error(
    p: Float[np.ndarray, " B"], correct: Float[np.ndarray, " B"], bins: int = BINS
) -> Statistic:
    """The expected calibration error (Guo et al. 2017, eq. 5) over bins of equal width:

    ECE = sum_m n_m / n * |accuracy_m - confidence_m|
    """
    p, correct = _checked(p, correct)
    places, surplus = _bin_numbers(p, bins), correct - p

    def error(numbers: np.ndarray) -> float:
        sums = np.bincount(places[numbers], surplus[numbers], bins)  # n_m * (accuracy_m - confidence_m)
        return float(np.abs(sums).sum() / len(numbers))

    return error


def brier_scores(p: Float[np.ndarray, " B"], correct: Float[np.ndarray, " B"]) -> Float[np.ndarray, " B"]:
    """Each question's squared error `(p - correct)^2`; their mean is the Brier score (Brier 1950)."""
    p, correct = _checked(p, correct)
    return (p - correct) ** 2


def reliability(p: Float[np.ndarray, " B"], correct: Float[np.ndarray, " B"], bins: int = BINS) -> list[Bin]:
    """The table behind a reliability diagram: confidence and accuracy in each bin of equal width."""
    p, correct = _checked(p, correct)
    places, edges = _bin_numbers(p, bins), np.linspace(0, 1, bins + 1).tolist()
    table = []
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        inside = places == number
        means = (float(p[inside].mean()), float(correct[inside].mean())) if inside.any() else (math.nan, math.nan)
        table.append(Bin(low, high, int(inside.sum()), *means))
    return table


def risk_coverage(p: Float[np.ndarray, " B"], correct: Float[np.ndarray, " B"]) -> RiskCoverage:
    """The risk-coverage curve (Geifman and El-Yaniv 2017).

    The order of equally probable answers is arbitrary: the risk is the mean over all their orders.
    """
    return _risk_coverage(*_checked(p, correct))


def area_under_risk_coverage(p: Float[np.ndarray, " B"], correct: Float[np.ndarray, " B"]) -> Statistic:
    """AURC (Geifman et al. 2019): the mean risk over the coverages 1/B, 2/B, …, 1. Lower is better."""
    p, correct = _checked(p, correct)
    return lambda numbers: float(_risk_coverage(p[numbers], correct[numbers]).risk.mean())


def _risk_coverage(p: np.ndarray, correct: np.ndarray) -> RiskCoverage:
    _, group, sizes = np.unique(-p, return_inverse=True, return_counts=True)  # of equally probable answers
    error_rates = np.bincount(group, 1 - correct) / sizes
    answered = np.arange(1, len(p) + 1)
    return RiskCoverage(answered / len(p), np.cumsum(np.repeat(error_rates, sizes)) / answered)


def _bin_numbers(p: np.ndarray, bins: int) -> np.ndarray:
    if bins < 1:
        raise InputError(f"{bins} bins are none; ask for one or more")
    return np.digitize(p, np.linspace(0, 1, bins + 1)[1:-1], right=True)


def _checked(p: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64. Raises `InputError` for values or lengths that cannot be."""
    p, correct = np.asarray(p, np.float64), np.asarray(correct, np.float64)
    if len(p) != len(correct):
        raise InputError(f"{len(p)} probabilities for {len(correct)} answers; give one per answer")
    if not len(p):
        raise InputError("no answers to score; give one at least")
    if not ((p >= 0) & (p <= 1)).all():
        raise InputError("a probability is not between 0 and 1; convert log-probabilities by answer_probabilities")
    if not np.isin(correct, (0, 1)).all():
        raise InputError("an answer is neither correct (1) nor wrong (0); score answers by exact match")
    return p, correct
