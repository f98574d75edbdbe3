"""Engines that are kept with a store, each measured against the exact search when it is built.

What was measured stands in the manifest, and comes back with everything that the engine finds. An engine belongs to the
rows that there were: those added later are added to FAISS's when it is opened, and words are counted again.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rag_jax.errors import InputError
from rag_jax.index import manifest, ownership
from rag_jax.index.engines.bm25 import BM25
from rag_jax.index.engines.device import DeviceIndex
from rag_jax.index.engines.engine import Engine, Queries
from rag_jax.index.engines.faiss_index import FaissIndex
from rag_jax.index.engines.recall import recall, sample_queries
from rag_jax.index.manifest import Manifest
from rag_jax.index.placement import Placement, Precision
from rag_jax.index.store import Store

BLOCK = 65_536  # vectors that are added to an index together
TRAINING = 262_144  # vectors, at most, that one is trained on
QUERIES = 256  # that recall is measured with, where no questions are given


class RecallQueries(NamedTuple):
    """What recall is measured with."""

    vectors: Float[np.ndarray, "Q D"]
    excluded: Int[np.ndarray, "Q E"] | None  # the queries themselves, where they are passages

    @property
    def queries(self) -> Queries:
        """As engines are asked."""
        return Queries([""] * len(self.vectors), self.vectors)


def passage_queries(store: Store) -> RecallQueries:
    """Passages of the store as queries, each of which is not to find itself."""
    return RecallQueries(*sample_queries(store.passage_vectors, QUERIES, 0, store.alive))


def add_faiss(store: Store, factory: str, queries: RecallQueries) -> Manifest:
    """Build an index of FAISS over a store's vectors, measure it, and keep it.

    Raises `InputError` for a store that cannot be written, before anything is built, and for one that has changed.
    """
    ownership.check_writable(_folder(store))
    sample, _ = sample_queries(store.passage_vectors, TRAINING, 1)
    built = FaissIndex.build(store.passage_vectors.blocks(BLOCK), factory, sample)
    found = measure_recall(replace(built, alive=store.alive), store, queries)

    def save(part: Path) -> None:
        built.save(part / FAISS)

    return _save_engine(store, "faiss", {"factory": factory, "rows": store.size, "recall": found}, save)


def add_bm25(store: Store) -> Manifest:
    """Count a store's words, and keep that. Raises as `keep_faiss`."""
    ownership.check_writable(_folder(store))
    return _save_engine(store, "bm25", {"rows": store.size}, BM25.build(store.passages).save)


def measure_precision(store: Store, precision: Precision, queries: RecallQueries) -> Manifest:
    """Measure the search on the device with vectors in fewer bits; nothing is built. Raises as `keep_faiss`."""
    ownership.check_writable(_folder(store))
    found = measure_recall(DeviceIndex.of(store, Placement(precision=precision)), store, queries)
    return _save_engine(store, precision, {"rows": store.size, "recall": found})


def measure_recall(engine: Engine, store: Store, queries: RecallQueries) -> dict[str, float]:
    """`recall@k` of an engine against the exact search in float32."""
    return recall(engine, DeviceIndex.of(store, Placement()), queries.queries, excluded=queries.excluded)


def open_faiss(store: Store) -> FaissIndex:
    """A store's index of FAISS, with the rows that came after it.

    Raises `InputError` where there is none, and for one that is damaged.
    """
    facts = _facts(store, "faiss")
    if facts is None:
        where = store.folder or "the store in memory"
        raise InputError(f"{where}: has no index of FAISS; build one with rag-jax index --out DIR --faiss HNSW32")
    index = FaissIndex.open(_folder(store) / facts["part"] / FAISS, store.width, facts["rows"])
    if facts["rows"] < store.size:
        index = index.extend(store.passage_vectors.blocks(BLOCK, start=facts["rows"]))
    return replace(index, alive=store.alive if store.removed else None, recall=facts["recall"])


def open_bm25(store: Store) -> BM25:
    """A store's index of words; where there is none, or not of all its rows, the words are counted now."""
    facts, alive = _facts(store, "bm25"), store.alive if store.removed else None
    if facts is None or facts["rows"] != store.size:
        return replace(BM25.build(store.passages), alive=alive)
    return replace(BM25.open(_folder(store) / facts["part"], store.size), alive=alive)


FAISS = "index.faiss"


def _facts(store: Store, name: str) -> dict[str, Any] | None:
    return store.manifest.engines.get(name) if store.manifest else None


def _folder(store: Store) -> Path:
    if store.folder is None:
        raise InputError("the store is in memory; build one on the disk to keep an engine with it")
    return store.folder


def _save_engine(
    store: Store, name: str, facts: dict[str, Any], save: Callable[[Path], None] | None = None
) -> Manifest:
    """Keep what was measured, and saved, of an engine; other writers are waited for.

    Raises `InputError` where the store's rows are not those any more that the engine was built of.
    """
    folder = _folder(store)
    with manifest.transaction(folder, keep_waiting=lambda: True) as now:
        if store.manifest is None or now.content != store.manifest.content:
            raise InputError(f"{folder}: was changed while an engine was built; build the engine again")
        if save is not None:
            part = f"engines/{name}-{now.version + 1:06d}"
            save(folder / part)
            facts = facts | {"part": part}
        return manifest.commit(
            folder,
            now,
            now.next_version(f"engine {name}", engines=now.engines | {name: facts}, build_spec=now.build_spec),
        )
