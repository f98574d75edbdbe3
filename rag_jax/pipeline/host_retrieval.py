"""Retrieval on the host, and its results as inputs of the compiled programs.

The retrieved passages form a small `Knowledge` of their own: the vectors and tokens of B * K passages. Programs and
loss are the same as with the index on the device: scores are recomputed from the vectors, unless the engine's scores
are the prior (BM25, the paper's ablation).
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Int

from rag_jax.core.decode.decoding import Answered
from rag_jax.errors import InputError
from rag_jax.index.engines.engine import Engine, EngineResults, Queries
from rag_jax.index.engines.registry import ENGINES
from rag_jax.index.placement import Placement
from rag_jax.index.store import Store
from rag_jax.types import Knowledge, SearchResults, host

T = TypeVar("T")


class RetrievalInputs(NamedTuple):
    """The retrieval inputs of a program. Without `search_results` the program searches `knowledge`."""

    knowledge: Knowledge
    search_results: SearchResults | None
    rows: Int[np.ndarray, "B K"] | None  # of the store, where `knowledge` is a subset of it

    def with_store_rows(self, answered: Answered) -> Answered:
        """An answer on the host, with rows of the store instead of rows of `knowledge`."""
        if self.rows is None:
            return answered
        return answered._replace(retrieved=answered.retrieved._replace(rows=self.rows))


@dataclass(frozen=True)
class HostSearch:
    """A search engine on the host, over a store."""

    engine: Engine
    store: Store
    is_prior: bool  # whether its scores are the logits of p(z|x)
    num_devices: int = 1  # of the mesh, which share the passages that are read
    needs_vectors: bool = True  # of the questions; otherwise it searches by their texts

    def search(self, texts: Sequence[str], vectors: Float[np.ndarray, "B D"] | None, k: int) -> EngineResults:
        """Search by the texts of questions, and by their vectors where the engine needs them."""
        return self.engine.search(Queries(texts, vectors), k)

    def __call__(self, texts: Sequence[str], vectors: Float[np.ndarray, "B D"] | None, k: int) -> RetrievalInputs:
        """Search, and return the retrieved passages as inputs of a program."""
        hits = self.search(texts, vectors, k)
        return self.subset(hits.rows, hits.scores if self.is_prior else None)

    def subset(self, rows: Int[np.ndarray, "B K"], scores: Float[np.ndarray, "B K"] | None) -> RetrievalInputs:
        """Rows of the store as inputs of a program, see `knowledge_subset`."""
        return knowledge_subset(self.store, rows, scores, self.num_devices)


def host_search(name: str, store: Store, placement: Placement) -> HostSearch | None:
    """The host engine of that name; None for the engine inside the compiled programs.

    Raises `InputError` where the store was built without the engine's files.
    """
    kind = ENGINES[name]
    if not kind.on_host or store.is_closed_book:
        return None
    return HostSearch(kind.open(store, placement), store, kind.scores_are_prior, placement.shards, kind.needs_vectors)


def open_engine(name: str, store: Store, placement: Placement) -> Engine:
    """An engine over a store, by its name."""
    known = [each for each, kind in ENGINES.items() if not kind.reads_question_file]
    if name not in known:
        raise InputError(f"no engine {name!r}; the engines are {', '.join(known)}")
    return ENGINES[name].open(store, placement)


def knowledge_subset(
    store: Store, rows: Int[np.ndarray, "B K"], scores: Float[np.ndarray, "B K"] | None, multiple: int = 1
) -> RetrievalInputs:
    """Rows of a store (-1: none) as a `Knowledge` of `B * K` passages, where each occurs once before the padding.

    The number of passages is a multiple of `multiple`, so that so many devices can share them.

    A question without results is answered closed book: it reads one empty passage with prior 1.
    """
    unique, positions = np.unique(rows, return_inverse=True)
    padded = np.resize(unique, -(-rows.size // multiple) * multiple)
    subset_rows = np.where(rows < 0, -1, positions.reshape(rows.shape)).astype(np.int32)
    is_empty = (rows < 0).all(axis=1)
    subset_rows[is_empty, 0] = 0  # -1 sorts first
    if scores is not None:
        scores = scores.copy()
        scores[is_empty, 0] = 0
    results = SearchResults(host(subset_rows), None if scores is None else host(scores))
    return RetrievalInputs(store.subset(padded), results, rows)


def subset_positions(positives: Int[np.ndarray, "B G"], rows: Int[np.ndarray, "B K"]) -> Int[np.ndarray, "B G"]:
    """Positions of the gold rows in `knowledge_subset(rows)`; `rows.size` for a row that is not in it."""
    unique = np.unique(rows)
    positions = np.minimum(np.searchsorted(unique, positives), unique.size - 1)
    positions = np.where(unique[positions] == positives, positions, rows.size)
    return np.where(positives < 0, -1, positions).astype(np.int32)


def prefetch(
    items: Iterable[T], search: Callable[[T], Callable[[], RetrievalInputs]], staleness: int
) -> Iterator[tuple[T, Callable[[], RetrievalInputs]]]:
    """Items, each with a function that waits for its search results; searches run in a thread, `staleness` ahead.

    Args:
        search: called with an item when its search is submitted; returns the function to run in the thread.
        staleness: 0: each search is submitted with its item, exact and sequential. 1: it is submitted with the item
            before, with parameters one update old, and runs while the device trains on that item.
    """
    with ThreadPoolExecutor(1) as pool:
        pending: deque[tuple[T, Future[RetrievalInputs]]] = deque()
        for item in items:
            pending.append((item, pool.submit(search(item))))
            if len(pending) > staleness:
                first, future = pending.popleft()
                yield first, future.result
        while pending:
            first, future = pending.popleft()
            yield first, future.result
