"""Searches outside the compiled programs, and how their results get in.

What a host engine found travels as a little knowledge of its own: the vectors and tokens of the B * K passages, and
their rows in it. The programs are the same as with the index on the device, and so is the loss: scores are recomputed
from the vectors, unless the engine's own are the prior (BM25's, the paper's ablation).
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
    """What a program is to read: some knowledge, and what was found in it (None: the program searches)."""

    knowledge: Knowledge
    search_results: SearchResults | None
    rows: Int[np.ndarray, "B K"] | None  # of the store, where `knowledge` is a little one

    def with_store_rows(self, answered: Answered) -> Answered:
        """An answer on the host, its passages told by their rows of the store."""
        if self.rows is None:
            return answered
        return answered._replace(retrieved=answered.retrieved._replace(rows=self.rows))


@dataclass(frozen=True)
class HostSearch:
    """An engine outside the programs, over a store."""

    engine: Engine
    store: Store
    is_prior: bool  # whether its scores are the logits of p(z|x)

    def search(self, texts: Sequence[str], vectors: Float[np.ndarray, "B D"] | None, k: int) -> EngineResults:
        """Search for questions: their texts, and their vectors where the engine compares those."""
        return self.engine.search(Queries(texts, vectors), k)

    def __call__(self, texts: Sequence[str], vectors: Float[np.ndarray, "B D"] | None, k: int) -> RetrievalInputs:
        """The passages that a search finds, for a program to read."""
        hits = self.search(texts, vectors, k)
        return knowledge_subset(self.store, hits.rows, hits.scores if self.is_prior else None)


def host_search(name: str, store: Store, placement: Placement) -> HostSearch | None:
    """The engine of a config's name; None for the one inside the programs.

    Raises `InputError` where the store was not built with what it needs.
    """
    kind = ENGINES[name]
    if not kind.on_host or store.is_closed_book:
        return None
    return HostSearch(kind.open(store, placement), store, kind.scores_are_prior)


def open_engine(name: str, store: Store, placement: Placement) -> Engine:
    """An engine over a store, by its name."""
    searching = [each for each, kind in ENGINES.items() if not kind.reads_question_file]
    if name not in searching:
        raise InputError(f"no engine {name!r}; the engines are {', '.join(searching)}")
    return ENGINES[name].open(store, placement)


def knowledge_subset(
    store: Store, rows: Int[np.ndarray, "B K"], scores: Float[np.ndarray, "B K"] | None
) -> RetrievalInputs:
    """Chosen rows of a store (-1: none) as a knowledge of `B * K` passages, in which none is there twice.

    A question for which nothing was found is answered closed book: it reads one empty passage, whose prior is one.
    """
    different, places = np.unique(rows, return_inverse=True)
    filled = np.resize(different, rows.size)
    found = np.where(rows < 0, -1, places.reshape(rows.shape)).astype(np.int32)
    nothing = (rows < 0).all(axis=1)
    found[nothing, 0] = 0  # -1 sorts first
    if scores is not None:
        scores = scores.copy()
        scores[nothing, 0] = 0
    return RetrievalInputs(
        store.subset(filled), SearchResults(host(found), None if scores is None else host(scores)), rows
    )


def subset_positions(positives: Int[np.ndarray, "B G"], rows: Int[np.ndarray, "B K"]) -> Int[np.ndarray, "B G"]:
    """Gold rows of the store as places in a little knowledge of `rows`; one that is not there is past its end."""
    different = np.unique(rows)
    places = np.minimum(np.searchsorted(different, positives), different.size - 1)
    found = np.where(different[places] == positives, places, rows.size)
    return np.where(positives < 0, -1, found).astype(np.int32)


def prefetch(
    items: Iterable[T], search: Callable[[T], Callable[[], RetrievalInputs]], staleness: int
) -> Iterator[tuple[T, Callable[[], RetrievalInputs]]]:
    """Items, each with a wait for what is found for it; the search for one `staleness` later runs in the meantime.

    `search(item)` starts with what is known then, and returns what is to be computed. With a staleness of 0 each
    search is made when its item's turn has come: exact, one after the other. With 1 it is made when the item before
    begins, by the question tower as it is then, one update too old, while the device trains on that item.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[tuple[T, Future[RetrievalInputs]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(search(item))))
            if len(waiting) > staleness:
                first, future = waiting.popleft()
                yield first, future.result
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result
