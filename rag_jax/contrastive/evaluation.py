"""Recall of a bi-encoder over the whole corpus, by gold passages and by answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from rich.console import Group, RenderableType
from rich.table import Table

from rag_jax.data.questions import Question
from rag_jax.evaluation.evaluate import passages_of
from rag_jax.evaluation.metrics.ranking import DEPTHS, answer_recall_scores, ranking_scores
from rag_jax.index.engines.engine import Queries
from rag_jax.index.placement import Placement
from rag_jax.index.store import Store
from rag_jax.pipeline.host_retrieval import open_engine

SUFFIXES = {"": "this model", "_before": "before", "_bm25": "BM25"}  # of names in results.json, with their columns
BATCH = 256  # questions searched at once


def vector_rows(store: Store, vectors: np.ndarray, depth: int) -> Int[np.ndarray, "B K"]:
    """The rows of the passages nearest to question vectors, best first; -1: none."""
    engine = open_engine("device", store, Placement())
    pieces = (vectors[start : start + BATCH] for start in range(0, len(vectors), BATCH))
    return np.concatenate([engine.search(Queries([""] * len(each), each), depth).rows for each in pieces])


def scores(store: Store, rows: Int[np.ndarray, "B K"], questions: Sequence[Question]) -> dict[str, float]:
    """recall@k and MRR by gold passages, and recall@k by answers: means over the questions that have them."""
    found = passages_of(store, rows)
    depths = [k for k in DEPTHS if k <= rows.shape[1]]
    gold = ranking_scores([[passage.id for passage in ranked] for ranked in found], questions, depths)
    texts = [[passage.text for passage in ranked] for ranked in found]
    kept = {name: gold[name] for name in (*(f"recall@{k}" for k in depths), "mrr")}
    if any(question.answers for question in questions):
        kept |= answer_recall_scores(texts, questions, depths)
    return {name: float(np.nanmean(values)) for name, values in kept.items() if not np.isnan(values).all()}


def results_table(results: Mapping[str, Any]) -> RenderableType:
    """The scores in rows; the trained towers, those before training and BM25 in columns."""
    suffixes = [each for each in SUFFIXES if f"recall@1{each}" in results or f"answer_recall@1{each}" in results]
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for each in suffixes:
        table.add_column(SUFFIXES[each], justify="right")
    for name in results:
        if name == "mrr" or ("recall@" in name and name.partition("@")[2].isdigit()):
            cells = (results.get(f"{name}{each}") for each in suffixes)
            table.add_row(name.replace("_", " "), *("" if cell is None else f"{cell:.3f}" for cell in cells))
    facts = f"{results['questions']:,} questions, {results['passages']:,} passages, {results['steps']:,} steps"
    return Group(table, "", f"{facts}, {results['train_seconds']:,.0f} s")
