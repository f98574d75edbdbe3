"""Figures with their uncertainty: a statistic over questions, and its bootstrap interval.

Questions are resampled with replacement and the statistic is computed again; the interval holds the middle 95 % of its
values (the percentile bootstrap, Efron and Tibshirani 1993). It says how a score would vary over other questions of the
same kind. It does not say how it would vary over training runs.
"""

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

RESAMPLES, CONFIDENCE = 2_000, 0.95

Statistic = Callable[[Int[np.ndarray, " n"]], float]  # of the questions with these numbers


class Figure(NamedTuple):
    """A figure, its interval, and the number of questions that it was measured on."""

    value: float
    low: float
    high: float
    questions: int


def mean_figure(values: Float[np.ndarray, " B"], resamples: int = RESAMPLES, seed: int = 0) -> Figure:
    """The mean of the questions' own scores; NaN: the score does not apply to that question, which is not counted."""
    known = values[~np.isnan(values)].astype(np.float64)
    return _figure(known, lambda sample, axis: np.mean(sample, axis=axis), True, resamples, seed)


def rate_figure(values: Float[np.ndarray, " B"]) -> Figure:
    """The mean of scores that are 0 or 1 with Wilson's interval (1927); NaN as in `mean_figure`.

    For rates near 0 and 1, which a system that always or never refuses has: there every resample of the bootstrap is
    the same, and its interval is empty however few the questions are.
    """
    known = values[~np.isnan(values)].astype(np.float64)
    if not len(known):
        return Figure(math.nan, math.nan, math.nan, 0)
    interval = stats.binomtest(int(known.sum()), len(known)).proportion_ci(CONFIDENCE, method="wilson")
    return Figure(float(known.mean()), float(interval.low), float(interval.high), len(known))


def score_figure(values: Float[np.ndarray, " B"]) -> Figure:
    """`mean_figure`, or `rate_figure` where all scores are 0, or all 1."""
    known = values[~np.isnan(values)]
    constant = len(known) > 0 and (known == known[0]).all() and known[0] in (0, 1)
    return rate_figure(values) if constant else mean_figure(values)


def figure(
    statistic: Statistic, questions: int, resamples: int = RESAMPLES, seed: int = 0, basic: bool = False
) -> Figure:
    """A statistic of a whole set of questions, such as macro-F1 or a calibration error.

    Resamples on which it is NaN, such as the recall of a label that none of them has, do not count for the interval.

    Args:
        basic: whether the interval is the basic bootstrap's (2 v - high, 2 v - low), 0 at least. For a statistic v that
            resampling makes larger, such as a sum of absolute differences: the percentile interval then lies above it.
    """
    numbers = np.arange(questions)
    found = _figure(numbers, lambda sample: statistic(sample.astype(np.int64)), False, resamples, seed)
    if not basic:
        return found
    low, high = (2 * found.value - end for end in (found.high, found.low))
    return found._replace(low=max(low, 0.0), high=max(high, 0.0))


def _figure(data: np.ndarray, statistic: Callable, vectorized: bool, resamples: int, seed: int) -> Figure:
    if not len(data):
        return Figure(math.nan, math.nan, math.nan, 0)
    value = float(statistic(data, axis=0) if vectorized else statistic(data))
    if len(data) == 1:
        return Figure(value, value, value, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # of resamples without a value
        resampled = stats.bootstrap(
            (data,),
            statistic,
            vectorized=vectorized,
            n_resamples=resamples,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(seed),
            batch=256 if vectorized else None,
        ).bootstrap_distribution
    known = resampled[~np.isnan(resampled)]
    if not len(known):
        return Figure(value, math.nan, math.nan, len(data))
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(known, (tail, 100 - tail))
    return Figure(value, float(low), float(high), len(data))
