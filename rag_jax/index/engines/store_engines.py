"""Engines saved in a store, each with its recall against exact search, measured when it is built.

The manifest records the recall, and search results report it until passages are added or removed. An engine covers the
rows that existed when it was built: later rows are added to a FAISS index when it is opened, a BM25 index is rebuilt.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rag_jax.errors import InputError
from rag_jax.index import manifest, ownership, part_files
from rag_jax.index.engines.blockwise import BlockwiseIndex
from rag_jax.index.engines.bm25 import BM25
from rag_jax.index.engines.device import DeviceIndex
from rag_jax.index.engines.engine import Engine, Queries
from rag_jax.index.engines.faiss_index import FaissIndex
from rag_jax.index.engines.recall import known_recall, recall, sample_queries
from rag_jax.index.manifest import Manifest
from rag_jax.index.placement import Placement, Precision
from rag_jax.index.store import Store

BLOCK = 65_536  # vectors added to an index at once
TRAINING = 262_144  # maximum number of training vectors
QUERIES = 256  # number of passages used as queries if no questions are given


class RecallQueries(NamedTuple):
    """The queries that recall is measured with."""

    vectors: Float[np.ndarray, "Q D"]
    excluded: Int[np.ndarray, "Q E"] | None  # the rows of queries that are passages

    @property
    def queries(self) -> Queries:
        """The `Queries` for an engine."""
        return Queries([""] * len(self.vectors), self.vectors)


def passage_queries(store: Store) -> RecallQueries:
    """Passages of the store as queries, each excluded from its own results."""
    return RecallQueries(*sample_queries(store.passage_vectors, QUERIES, 0, store.alive))


def add_faiss(store: Store, factory: str, queries: RecallQueries) -> Manifest:
    """Build a FAISS index over a store's vectors, measure its recall, and save it in the store.

    Raises `InputError` for a store that is not writable, before building, and for one that changed during it.
    """
    ownership.check_writable(_folder(store))
    sample, _ = sample_queries(store.passage_vectors, TRAINING, 1)
    built = FaissIndex.build(store.passage_vectors.blocks(BLOCK), factory, sample)
    found = measure_recall(replace(built, alive=store.alive), store, queries)

    def save(part: Path) -> None:
        part_files.write_part(part, others={FAISS: built.save})

    return _save_engine(store, "faiss", {"factory": factory, "recall": found}, save)


def add_bm25(store: Store) -> Manifest:
    """Build a BM25 index and save it in the store. Raises as `add_faiss`."""
    ownership.check_writable(_folder(store))
    return _save_engine(store, "bm25", {}, _build_bm25(store).save)


def measure_precision(store: Store, precision: Precision, queries: RecallQueries) -> Manifest:
    """Measure and record the recall of device search at a lower precision. Raises as `add_faiss`."""
    ownership.check_writable(_folder(store))
    found = measure_recall(DeviceIndex.of(store, Placement(precision=precision)), store, queries)
    return _save_engine(store, precision, {"recall": found})


def measure_recall(engine: Engine, store: Store, queries: RecallQueries) -> dict[str, float]:
    """`recall@k` of an engine against exact search in float32, which takes no more of the device than a block."""
    return recall(engine, BlockwiseIndex.of(store), queries.queries, excluded=queries.excluded)


def open_faiss(store: Store) -> FaissIndex:
    """Open a store's FAISS index, and add the rows that are newer. Raises `InputError` if it is missing or damaged."""
    facts = _facts(store, "faiss")
    if facts is None:
        where = store.folder or "the store in memory"
        raise InputError(f"{where}: has no index of FAISS; build one with rag-jax index --out DIR --faiss HNSW32")
    index = FaissIndex.open(_verified_part(store, facts) / FAISS, store.width, facts["rows"])
    if facts["rows"] < store.size:
        index = index.extend(store.passage_vectors.blocks(BLOCK, start=facts["rows"]))
    return replace(index, alive=store.alive if store.removed else None, recall=known_recall(store, facts))


def open_bm25(store: Store) -> BM25:
    """Open a store's BM25 index; if it is missing or does not cover all rows, build one in memory.

    An index that was built before passages were removed still counts their words, as Lucene's does; it does not find
    them.
    """
    facts = _facts(store, "bm25")
    if facts is None or facts["rows"] != store.size:
        return _build_bm25(store)
    return replace(BM25.open(_verified_part(store, facts), store.size), alive=store.alive if store.removed else None)


def _build_bm25(store: Store) -> BM25:
    return BM25.build(store.passages, store.alive if store.removed else None)


FAISS = "index.faiss"
REMEDY = "build it again with rag-jax index --out DIR and --faiss or --bm25"


def _facts(store: Store, name: str) -> dict[str, Any] | None:
    return store.manifest.engines.get(name) if store.manifest else None


def _verified_part(store: Store, facts: dict[str, Any]) -> Path:
    """The folder of an engine, every byte of which has its checksum: a damaged one may end the process.

    Raises `InputError` where it has not.
    """
    assert store.manifest is not None
    folder = _folder(store) / facts["part"]
    part_files.verify(folder, store.manifest.parts[facts["part"]], REMEDY)
    return folder


def _folder(store: Store) -> Path:
    if store.folder is None:
        raise InputError("the store is in memory; build one on the disk to keep an engine with it")
    return store.folder


def _save_engine(
    store: Store, name: str, facts: dict[str, Any], save: Callable[[Path], None] | None = None
) -> Manifest:
    """Save an engine and record it in the manifest; waits for other writers.

    Raises `InputError` if the store's rows changed since the engine was built.
    """
    folder = _folder(store)
    with manifest.transaction(folder, keep_waiting=lambda: True) as now:
        if store.manifest is None or now.content != store.manifest.content:
            raise InputError(f"{folder}: was changed while an engine was built; build the engine again")
        facts = facts | {"rows": store.size, "removed": now.removed}
        if save is not None:
            part = f"engines/{name}-{now.version + 1:06d}"
            save(folder / part)
            facts = facts | {"part": part}
        return manifest.commit(
            folder,
            now,
            now.next_version(f"engine {name}", engines=now.engines | {name: facts}, build_spec=now.build_spec),
        )
