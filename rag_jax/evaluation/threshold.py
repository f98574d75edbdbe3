"""The threshold below which answers are withheld, chosen on an earlier evaluation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rag_jax.data.questions import Question
from rag_jax.errors import InputError, warn
from rag_jax.evaluation.metrics.no_answer import Threshold, answerable, best_threshold
from rag_jax.evaluation.predictions import read_predictions
from rag_jax.evaluation.score_file import read_evaluation

PREDICTIONS = "predictions.jsonl"  # beside the scores file


def calibrated(folder: Path, questions: Sequence[Question]) -> Threshold:
    """The threshold with the best exact match on an evaluation; warns where that has some of the `questions` too.

    Raises `InputError` for a folder without an evaluation, and for one whose answers have no log-probability.
    """
    evaluation = read_evaluation(folder)
    if "exact_match" not in evaluation.scores:
        raise InputError(f"{evaluation.path}: has no exact_match; name an evaluation of generated answers")
    known = [Question(each.id, each.question, each.answers) for each in evaluation.questions]
    predictions = read_predictions(evaluation.path.with_name(PREDICTIONS), known)
    for scored, prediction in zip(evaluation.questions, predictions, strict=True):
        if scored.answer not in (prediction.answer, ""):  # "": it was withheld
            what = f'"{scored.id}" has another answer in {PREDICTIONS} than in {evaluation.path.name}'
            raise InputError(f"{folder}: {what}; run that evaluation again to its end")
    log_probs = [prediction.log_prob for prediction in predictions]
    correct = evaluation.scores.get("always_answering", evaluation.scores["exact_match"])  # before any was withheld
    if np.isnan(correct).any():
        problem = "some questions are answered by regular expressions, which exact match does not score"
        raise InputError(f"{folder}: {problem}; calibrate on an evaluation of others")
    try:
        threshold = best_threshold(log_probs, correct, answerable(known))
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    both = {question.question for question in known} & {question.question for question in questions}
    if both:
        warn(f"{folder}: has {len(both):,} of the questions that are evaluated, so the threshold is chosen on them")
    return threshold
