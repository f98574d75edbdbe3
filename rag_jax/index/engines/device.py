"""Exact search on the device behind the `Engine` interface, for searches and for measuring other engines."""

from dataclasses import dataclass
from functools import lru_cache

import jax
import numpy as np
from jaxtyping import Array, Int

from rag_jax.core.retrieval import Index
from rag_jax.errors import InputError
from rag_jax.index.engines.engine import EngineResults, Queries
from rag_jax.index.engines.recall import known_recall
from rag_jax.index.placement import Placement
from rag_jax.index.store import Store
from rag_jax.types import Knowledge, SearchResults


@dataclass(frozen=True)
class DeviceIndex:
    """Vectors on one or several devices; the search is exact at their precision."""

    knowledge: Knowledge
    index: Index
    recall: dict[str, float] | None = None  # measured recall@k at lower precision; None: float32

    @classmethod
    def of(cls, store: Store, placement: Placement) -> "DeviceIndex":
        """Load a store's vectors, without its tokens."""
        measured = store.manifest and store.manifest.engines.get(placement.precision)
        recall = None if placement.precision == "float32" else known_recall(store, measured) if measured else {}
        return cls(placement.search_arrays(store), placement.index, recall)

    def search(self, queries: Queries, k: int, excluded: Int[np.ndarray, "B E"] | None = None) -> EngineResults:
        """The k best rows for each question. Raises `InputError` for questions without vectors."""
        if k < 1:
            raise InputError(f"cannot retrieve {k} passages; ask for 1 or more")
        barred = None if excluded is None else excluded.astype(np.int32)
        found = jax.device_get(_searching(self.index, k)(queries.required_vectors, self.knowledge, barred))
        return EngineResults(found.rows, found.scores, 1.0 if self.recall is None else self.recall.get(f"recall@{k}"))


@lru_cache
def _searching(index: Index, k: int):
    def search(queries: Array, knowledge: Knowledge, excluded: Array | None) -> SearchResults:
        return index.nearest(queries, knowledge, k, excluded)

    return jax.jit(search)
