"""The threshold of an earlier evaluation, below which answers are withheld."""

from pathlib import Path

from rag_jax.data.questions import Question
from rag_jax.errors import InputError
from rag_jax.evaluation.metrics.no_answer import Threshold, answerable, best_threshold
from rag_jax.evaluation.predictions import read_predictions
from rag_jax.evaluation.score_file import read_evaluation

PREDICTIONS = "predictions.jsonl"


def calibrated(folder: Path) -> Threshold:
    """The threshold with the best exact match on an evaluation, which should not be of the questions it is used on.

    Raises `InputError` for a folder without an evaluation, and for one whose answers have no log-probability.
    """
    evaluation = read_evaluation(folder)
    if "exact_match" not in evaluation.scores:
        raise InputError(f"{evaluation.path}: has no exact_match; name an evaluation of generated answers")
    questions = [Question(each.id, each.question, each.answers) for each in evaluation.questions]
    predictions = read_predictions(evaluation.path.with_name(PREDICTIONS), questions)
    log_probs = [prediction.log_prob for prediction in predictions]
    return best_threshold(log_probs, evaluation.scores["exact_match"], answerable(questions))
