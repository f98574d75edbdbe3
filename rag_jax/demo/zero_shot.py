"""Scores of a baseline, named as the results table reads them."""

from collections.abc import Sequence

from rag_jax.data.questions import Question
from rag_jax.evaluation import evaluate
from rag_jax.rag import RAG


def answer_scores(rag: RAG, questions: Sequence[Question], prefix: str) -> dict[str, float]:
    """Exact match and F1 of a model, their names with a prefix as `results_table` reads them."""
    _, scores = evaluate.answering(rag, questions, rag.components.config.eval_batch)
    return {f"{prefix}{name}": score for name, score in scores.items()}
