"""Abstaining: leave questions unanswered whose answer has a low probability (SQuAD 2.0, Rajpurkar et al. 2018).

An answer is given if log p(y|x) reaches a threshold; otherwise the answer is "". The threshold is chosen on calibration
questions, which must not be those that the result is reported on. An empty answer is correct exactly where the question
is unanswerable.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from rag_jax.data.questions import Question
from rag_jax.errors import InputError
from rag_jax.evaluation.metrics.calibration import known_log_probs
from rag_jax.evaluation.predictions import Prediction


class Threshold(NamedTuple):
    """The lowest log-probability that an answer is given with, and what that gains on the calibration questions."""

    log_prob: float  # in nats; infinite: never answer
    score: float  # mean score with the threshold
    score_without: float  # mean score if every question is answered


def answerable(questions: Iterable[Question]) -> Bool[np.ndarray, " B"]:
    """Whether each question has an answer, other than "". Raises `InputError` for one without gold answers."""
    questions = list(questions)
    for question in questions:
        if not question.answers:
            raise InputError(f'question {question.id!r} has no gold answers; write "" if it is unanswerable')
    return np.array([any(question.answers) for question in questions], bool)


def best_threshold(
    log_probs: Sequence[float | None], correct: Float[np.ndarray, " B"], answerable: Bool[np.ndarray, " B"]
) -> Threshold:
    """The threshold with the highest mean score; of several, the highest threshold.

    The rule is that of `find_best_thresh` in SQuAD 2.0's evaluation script, with two exceptions: equally probable
    answers are given or withheld together, and an answer that normalises to nothing, as "the", counts as empty.

    Args:
        log_probs: log p(y|x) of each answer.
        correct: the score of each answer if it is given, such as exact match or F1.
        answerable: whether the question has an answer; abstaining scores 1 where it has none, and 0 elsewhere.

    Raises `InputError` for unknown log-probabilities, scores outside [0, 1], and unless some questions are answerable
    and some are not.
    """
    values, correct, answerable = _checked(log_probs, correct, answerable)
    if not len(values):
        raise InputError("no questions to choose a threshold on; give some of both kinds")
    if answerable.all() or not answerable.any():
        kind = "an answer" if answerable.all() else "none"
        remedy = "calibrate on questions with and without an answer"
        raise InputError(f"all of the questions have {kind}, so there is no threshold to choose; {remedy}")
    levels, group = np.unique(-values, return_inverse=True)  # the most probable answers first
    gains = np.bincount(group, correct - ~answerable)  # of answering instead of abstaining
    totals = (~answerable).sum() + np.concatenate([[0.0], np.cumsum(gains)])  # with the first 0, 1, … levels answered
    best = int(np.argmax(totals))
    lowest = math.inf if best == 0 else -float(levels[best - 1])
    return Threshold(lowest, float(totals[best]) / len(values), float(correct.mean()))


def abstain(predictions: Iterable[Prediction], threshold: float) -> list[Prediction]:
    """The predictions, with the answer "" where the log-probability is below the threshold.

    Raises `InputError` for a prediction without a log-probability.
    """
    predictions = list(predictions)
    values = known_log_probs(prediction.log_prob for prediction in predictions)
    return [
        prediction if value >= threshold else prediction._replace(answer="")
        for prediction, value in zip(predictions, values.tolist(), strict=True)
    ]


def abstention_scores(
    log_probs: Sequence[float | None],
    correct: Float[np.ndarray, " B"],
    answerable: Bool[np.ndarray, " B"],
    threshold: float,
) -> dict[str, Float[np.ndarray, " B"]]:
    """The effect of a threshold on each question.

    Returns:
        `always_answering`: the score without the threshold. `abstaining`: the score with it. `abstaining_answerable`,
        `abstaining_unanswerable`: the same, NaN on the other kind of question (SQuAD 2.0's HasAns and NoAns).
        `abstained`: 1 where the answer is withheld.

    Raises `InputError` for unknown log-probabilities, and for scores outside [0, 1].
    """
    values, correct, answerable = _checked(log_probs, correct, answerable)
    abstained = values < threshold
    score = np.where(abstained, ~answerable, correct)
    return {
        "always_answering": correct,
        "abstaining": score,
        "abstaining_answerable": np.where(answerable, score, np.nan),
        "abstaining_unanswerable": np.where(answerable, np.nan, score),
        "abstained": abstained.astype(np.float64),
    }


def _checked(
    log_probs: Sequence[float | None], correct: np.ndarray, answerable: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values = known_log_probs(log_probs)
    correct, answerable = np.asarray(correct, np.float64), np.asarray(answerable, bool)
    if not len(values) == len(correct) == len(answerable):
        counts = f"{len(values)} log-probabilities, {len(correct)} scores and {len(answerable)} questions"
        raise InputError(f"{counts} do not belong together; give one of each per question")
    if not ((correct >= 0) & (correct <= 1)).all():
        raise InputError("a score is not between 0 and 1; give exact match or F1")
    return values, correct, answerable
