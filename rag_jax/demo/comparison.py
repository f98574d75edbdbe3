"""The demo's results beside its baselines: a model without passages, and the retriever before training."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from rag_jax.data.questions import Question
from rag_jax.evaluation import evaluate
from rag_jax.rag import RAG


def alternate_name_recall(rag: RAG, test: Sequence[Question]) -> dict[str, float]:
    """Recall@1 on the questions that spell a city's name otherwise than its passage, after training and before."""
    alternate = [question for question in test if question.id.endswith("-alternate")]
    before = RAG(rag.components, rag.components.initial_params)
    return {
        "recall@1_alternate": evaluate.recall(rag, alternate)["recall@1"],
        "recall@1_alternate_before": evaluate.recall(before, alternate)["recall@1"],
    }


def answer_scores(rag: RAG, questions: Sequence[Question], prefix: str) -> dict[str, float]:
    """Exact match and F1 of a model, their names with a prefix as `results_table` reads them."""
    _, scores = evaluate.answering(rag, questions, rag.components.config.eval_batch)
    return {f"{prefix}{name}": score for name, score in scores.items()}


def comparison_table(results: Mapping[str, Any]) -> Table:
    """Each score beside its baseline."""
    table = Table("", "this model", "baseline", box=None, pad_edge=False)
    rows = [
        ("exact match", "exact_match", "closed_book_exact_match", "without passages"),
        ("recall@1", "recall@1", "recall@1_before", "retriever before training"),
        ("recall@1, alternate names", "recall@1_alternate", "recall@1_alternate_before", "retriever before training"),
    ]
    for label, score, baseline, description in rows:
        known = f"{results[baseline]:.3f}  {description}" if baseline in results else ""
        table.add_row(label, f"{results[score]:.3f}", known)
    return table
