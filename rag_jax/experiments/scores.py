"""Scores of several training runs on the same questions, summarised and compared.

A score is an array [S, B] of S runs and B questions. The range over the runs says how a result varies with the seed;
the bootstrap interval of the questions' means over the runs says how it varies with the questions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from rag_jax.data import strict_json
from rag_jax.data.files import write_atomically
from rag_jax.data.questions import Question
from rag_jax.data.validation import validate_value
from rag_jax.errors import InputError
from rag_jax.evaluation import evaluate
from rag_jax.evaluation.compare import SAME, permutation_test
from rag_jax.evaluation.intervals import score_figure
from rag_jax.evaluation.metrics.answers import is_correct
from rag_jax.pipeline.digests import answers_digest
from rag_jax.rag import RAG


class Summary(NamedTuple):
    """A mean over runs and questions, its range over the runs, and its 95 % interval over the questions."""

    mean: float
    lowest: float  # of the runs
    highest: float
    low: float  # of the interval
    high: float


REMEDY = "delete it: the model is asked again"
COLUMNS = ("exact match", "lowest seed", "highest seed", "95 % low", "95 % high")
"""The names of a summary's fields in tables."""
LEVEL = 0.05  # of significance


def exact_matches(
    rag: RAG, questions: Sequence[Question], kept: Path, passages: str = "its own", **options: Any
) -> Float[np.ndarray, " B"]:
    """1 for each question that is answered correctly, else 0; `options` are those of `RAG.answer`.

    Args:
        kept: folder of answers, in which a model that was asked before is not asked again.
        passages: which ones a model reads whose search is not that of its config.
    """
    options = {"batch_size": rag.components.config.eval_batch} | options
    asked = [question.question for question in questions]
    inputs = {"questions": asked, "passages": passages, "decoding": repr(rag.components.config.decoding), **options}
    path = kept / f"{answers_digest(rag.components, rag.params, inputs)}.json"
    if path.exists():
        texts = validate_value(tuple[str, ...], strict_json.read(path, REMEDY, REMEDY), "the answers", f"{path}: ")
        if len(texts) != len(asked):
            raise InputError(f"{path}: holds {len(texts)} answers to {len(asked)} questions; {REMEDY}")
    else:
        texts = [answer.text for answer in rag.answer(asked, **options)]
        kept.mkdir(exist_ok=True)
        write_atomically(path, strict_json.dumps(texts))
    pairs = zip(texts, questions, strict=True)
    return np.array([is_correct(text, question) for text, question in pairs], np.float64)


def recall_at_1(rag: RAG, questions: Sequence[Question]) -> float:
    """The question tower's recall@1, see `at_1`."""
    return at_1(evaluate.recall(rag, questions))


def at_1(found: Mapping[str, float]) -> float:
    """The recall@1 among the results of an evaluation: of gold passages, or where no question names any, of answers."""
    return found["recall@1" if "recall@1" in found else "answer_recall@1"]


def summarise(scores: Float[np.ndarray, "S B"]) -> Summary:
    """The summary of some scores. NaN: not counted, alike in all runs."""
    counted = scores[:, ~np.isnan(scores).any(axis=0)]
    if not counted.size:
        return Summary(*[np.nan] * 5)
    runs, figure = counted.mean(axis=1), score_figure(counted.mean(axis=0))
    return Summary(figure.value, float(runs.min()), float(runs.max()), figure.low, figure.high)


def p_value(one: Float[np.ndarray, "S B"], other: Float[np.ndarray, "S B"]) -> float:
    """The p-value of the paired permutation test of two models, on the means over their runs at each question."""
    differences = one.mean(axis=0) - other.mean(axis=0)
    return permutation_test(np.where(np.abs(differences) < SAME, 0.0, differences)).value
