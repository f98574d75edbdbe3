"""How much of what an exact search finds another engine finds: recall@K as the literature on approximate search has it.

Not to be confused with the recall of gold passages (`rag_jax.evaluation`), which judges the vectors; this judges the
engine.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int64

from rag_jax.index.columns import SegmentedArray
from rag_jax.index.engines.engine import Engine, EngineResults, Queries

KS = (1, 5, 10, 20, 100)
ROUNDING = 1e-6  # of the largest score: inner products that differ by less are equal


def recall(
    engine: Engine,
    exact: Engine,
    queries: Queries,
    ks: Sequence[int] = KS,
    excluded: Int[np.ndarray, "B E"] | None = None,
) -> dict[str, float]:
    """`recall@k`: the share of the exact search's first k that are among the engine's, the mean over the questions.

    Rows that the exact search scores as its k-th are as good as that one, whichever of them it names. Only the k for
    which there are k rows to be found; none where nothing is asked.
    """
    if not len(queries.texts):
        return {}
    deep = _exact_hits(exact, queries, max(ks), excluded)
    there = int((deep.rows >= 0).sum(axis=1).min())
    found = {
        k: engine.search(queries, k, excluded).rows for k in ks if k <= there
    }  # the depth may change what it finds
    return {f"recall@{k}": float(_is_correct(rows, deep, k).sum(axis=1).mean() / k) for k, rows in found.items()}


def sample_queries(
    vectors: Float[np.ndarray, "N D"] | SegmentedArray,
    count: int,
    seed: int,
    alive: Bool[np.ndarray, " N"] | None = None,
) -> tuple[Float32[np.ndarray, "Q D"], Int64[np.ndarray, "Q 1"]]:
    """Vectors of the index as queries, where no real questions are at hand, and the row of each.

    Every engine finds a vector by itself: pass the rows as `excluded`, lest the recall is flattered. There are fewer
    than `count` where the index holds fewer.
    """
    rows = np.arange(len(vectors)) if alive is None else np.flatnonzero(alive)
    chosen = np.sort(np.random.default_rng(seed).choice(rows, min(count, len(rows)), replace=False))
    return np.asarray(vectors[chosen], np.float32), chosen[:, None]


def _exact_hits(exact: Engine, queries: Queries, k: int, excluded: Int[np.ndarray, "B E"] | None) -> EngineResults:
    """Exact hits, down to one that is worse than the k-th, for every question that has so many."""
    depth = 2 * k
    while True:
        hits = exact.search(queries, depth, excluded)
        last = hits.rows[:, -1]
        if not ((last >= 0) & (hits.scores[:, -1] >= _score_threshold(hits, k))).any():
            return hits
        depth *= 2


def _score_threshold(hits: EngineResults, k: int) -> Float32[np.ndarray, " B"]:
    """The score that a hit must have to be as good as the k-th."""
    largest = np.abs(np.where(hits.rows >= 0, hits.scores, 0)).max(axis=1)
    return hits.scores[:, k - 1] - np.float32(ROUNDING) * largest


def _is_correct(rows: Int[np.ndarray, "B K"], deep: EngineResults, k: int) -> Bool[np.ndarray, "B K"]:
    """Which of the rows are as good as the exact search's first k."""
    good = np.where(deep.scores >= _score_threshold(deep, k)[:, None], deep.rows, -1)
    return (rows[:, :, None] == good[:, None, :]).any(axis=2) & (rows >= 0)
