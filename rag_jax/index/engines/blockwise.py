"""Exact search of vectors that need not fit on a device: they are read from the disk, and searched, block by block."""

from dataclasses import dataclass
from functools import lru_cache, partial

import jax
import numpy as np
from jaxtyping import Bool, Int

from rag_jax.core import retrieval
from rag_jax.index.columns import SegmentedArray
from rag_jax.index.engines.engine import EngineResults, Queries, num_candidates, select_top_k
from rag_jax.index.store import Store

ROWS = 65_536  # in a block


@dataclass(frozen=True)
class BlockwiseIndex:
    """The vectors of a store as they lie on the disk, searched in float32: slow, and as exact as `DeviceIndex`."""

    vectors: SegmentedArray
    alive: Bool[np.ndarray, " N"]

    @classmethod
    def of(cls, store: Store) -> "BlockwiseIndex":
        """The vectors of a store."""
        return cls(store.passage_vectors, store.alive)

    def search(self, queries: Queries, k: int, excluded: Int[np.ndarray, "B E"] | None = None) -> EngineResults:
        """The k best rows for each question. Raises `InputError` for questions without vectors."""
        vectors, wanted = queries.required_vectors, num_candidates(k, excluded)
        rows, scores = np.zeros((len(queries.texts), 0), np.int64), np.zeros((len(queries.texts), 0), np.float32)
        for start, block in zip(range(0, len(self.vectors), ROWS), self.vectors.blocks(ROWS), strict=True):
            alive = self.alive[start : start + ROWS]
            more_scores, ids = jax.device_get(_nearest(wanted)(vectors, block.astype(np.float32), alive=alive))
            rows = np.concatenate([rows, np.where(ids < 0, -1, ids + start)], axis=1)
            scores = np.concatenate([scores, more_scores], axis=1)
            best = np.argsort(-scores, axis=1, kind="stable")[:, :wanted]  # among equal scores the first row first
            rows, scores = np.take_along_axis(rows, best, axis=1), np.take_along_axis(scores, best, axis=1)
        return select_top_k(rows, scores, k, excluded, recall=1.0)


@lru_cache
def _nearest(k: int):
    return jax.jit(partial(retrieval.exact_top_k, k=k))
