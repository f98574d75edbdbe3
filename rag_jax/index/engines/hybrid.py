"""Reciprocal rank fusion of several engines (Cormack et al. 2009), which needs no common scale of their scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from rag_jax.index.engines.engine import Engine, EngineResults, Queries, num_candidates, select_top_k


@dataclass(frozen=True)
class Hybrid:
    """The score of a passage is the sum of `1 / (constant + rank)` over the engines whose top `depth` contain it.

    Recall is not defined: the results do not approximate one exact search.
    """

    engines: Sequence[Engine]
    constant: float = 60  # larger values give the first ranks less weight
    depth: int = 100  # hits of each engine that are fused

    def search(self, queries: Queries, k: int, excluded: Int[np.ndarray, "B E"] | None = None) -> EngineResults:
        """The k best rows for each question; ties in the order of the rows.

        Fuses `k` hits of each engine if `k` is greater than `depth`. Raises `InputError` as the engines do.
        """
        depth = max(self.depth, num_candidates(k, None))
        found = [engine.search(queries, depth, excluded).rows for engine in self.engines]
        rows = np.concatenate(found, axis=1).astype(np.int64)
        shares = np.concatenate([1 / (self.constant + np.arange(1, depth + 1))] * len(found))
        rows, scores = _summed(rows, np.where(rows < 0, 0.0, shares[None, :]))
        order = np.lexsort((rows, np.where(rows < 0, np.inf, -scores)), axis=1)
        return select_top_k(np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1), k)


def _summed(
    rows: Int[np.ndarray, "B C"], shares: Float[np.ndarray, "B C"]
) -> tuple[Int[np.ndarray, "B C"], Float[np.ndarray, "B C"]]:
    """Each row once, with the sum of its shares; duplicates become -1.

    The shares of a row are added in ascending order, so that the same ranks, by any engines, give equal scores.
    """
    order = np.lexsort((shares, rows), axis=1)
    rows, shares = np.take_along_axis(rows, order, axis=1), np.take_along_axis(shares, order, axis=1)
    new = np.diff(rows, axis=1, prepend=-2) != 0
    place = (np.cumsum(new.reshape(-1)) - 1).reshape(rows.shape)
    sums = np.bincount(place.reshape(-1), shares.reshape(-1))[place] if rows.size else shares
    return np.where(new, rows, -1), sums
