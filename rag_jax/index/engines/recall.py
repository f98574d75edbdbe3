"""Recall@k of an engine against exact search, as defined in the literature on approximate nearest neighbours.

It measures the engine; the recall of gold passages (`rag_jax.evaluation`) measures the vectors.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int64

from rag_jax.index.columns import SegmentedArray
from rag_jax.index.engines.engine import Engine, EngineResults, Queries
from rag_jax.index.store import Store

KS = (1, 5, 10, 20, 100)
ROUNDING = 1e-6  # relative to the largest score: smaller differences are ties


def recall(
    engine: Engine,
    exact: Engine,
    queries: Queries,
    ks: Sequence[int] = KS,
    excluded: Int[np.ndarray, "B E"] | None = None,
) -> dict[str, float]:
    """`recall@k`: the fraction of the exact top k that the engine's top k contain, averaged over the questions.

    Rows that tie with the exact k-th score count as correct. Values of k for which a question has fewer than k rows are
    omitted; without queries the result is empty.
    """
    if not len(queries.texts):
        return {}
    deep = _exact_hits(exact, queries, max(ks), excluded)
    there = int((deep.rows >= 0).sum(axis=1).min())
    found = {
        k: engine.search(queries, k, excluded).rows for k in ks if k <= there
    }  # the depth may change what it finds
    return {f"recall@{k}": float(_is_correct(rows, deep, k).sum(axis=1).mean() / k) for k, rows in found.items()}


def known_recall(store: Store, facts: Mapping[str, Any]) -> dict[str, float]:
    """The recall that was measured, `facts` of the manifest; nothing if passages were added or removed since."""
    now = store.manifest
    if now is None or (facts["rows"], facts.get("removed")) != (store.size, now.removed):
        return {}
    return facts["recall"] if len(store) == now.passages else {}  # none removed in memory


def sample_queries(
    vectors: Float[np.ndarray, "N D"] | SegmentedArray,
    count: int,
    seed: int,
    alive: Bool[np.ndarray, " N"] | None = None,
) -> tuple[Float32[np.ndarray, "Q D"], Int64[np.ndarray, "Q 1"]]:
    """Sample at most `count` vectors of the index as queries, for lack of real questions, and the row of each.

    Pass the rows as `excluded`: every engine finds a vector by itself, which would inflate the recall.
    """
    rows = np.arange(len(vectors)) if alive is None else np.flatnonzero(alive)
    chosen = np.sort(np.random.default_rng(seed).choice(rows, min(count, len(rows)), replace=False))
    return np.asarray(vectors[chosen], np.float32), chosen[:, None]


def _exact_hits(exact: Engine, queries: Queries, k: int, excluded: Int[np.ndarray, "B E"] | None) -> EngineResults:
    """Exact hits, deep enough that for every question the last one is worse than the k-th, if there are so many."""
    depth = 2 * k
    while True:
        hits = exact.search(queries, depth, excluded)
        last = hits.rows[:, -1]
        if not ((last >= 0) & (hits.scores[:, -1] >= _score_threshold(hits, k))).any():
            return hits
        depth *= 2


def _score_threshold(hits: EngineResults, k: int) -> Float32[np.ndarray, " B"]:
    """The score from which a hit ties with the k-th."""
    largest = np.abs(np.where(hits.rows >= 0, hits.scores, 0)).max(axis=1)
    return hits.scores[:, k - 1] - np.float32(ROUNDING) * largest


def _is_correct(rows: Int[np.ndarray, "B K"], deep: EngineResults, k: int) -> Bool[np.ndarray, "B K"]:
    """Which rows are among the exact top k, or tie with the k-th."""
    good = np.where(deep.scores >= _score_threshold(deep, k)[:, None], deep.rows, -1)
    return (rows[:, :, None] == good[:, None, :]).any(axis=2) & (rows >= 0)
