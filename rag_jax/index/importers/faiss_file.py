"""Vectors from a FAISS file."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from rag_jax.errors import InputError, warn
from rag_jax.index.importers.vectors import AT_ONCE, import_package, summarize_error


def open_faiss(file: Path) -> Any:
    faiss = import_package("faiss")
    try:
        return faiss.read_index(str(file), getattr(faiss, "IO_FLAG_MMAP_IFC", 0))  # memory-mapped, if FAISS can
    except RuntimeError as error:
        raise InputError(f"{file}: FAISS cannot read it ({summarize_error(error)}); write or copy it again") from None


def faiss_vectors(file: Path, width: int | None) -> Float[np.ndarray, "N D"]:
    """The vectors in a FAISS file, decompressed if necessary, in the order of their ids 0, 1, 2, …"""
    faiss, outer = import_package("faiss"), open_faiss(file)
    ids, index = np.arange(outer.ntotal), outer
    try:
        if isinstance(outer, faiss.IndexIDMap):
            ids, index = faiss.vector_to_array(outer.id_map), faiss.downcast_index(outer.index)
        if ivf := faiss.try_extract_index_ivf(index):
            ivf.make_direct_map(True)  # fails for ids beyond the last row
            ids = np.where(faiss.vector_to_array(ivf.direct_map.array) < 0, -1, ids)
        if not np.array_equal(np.sort(ids), np.arange(len(ids))):
            raise RuntimeError("its ids are not 0, 1, 2, …")
        if len(ids):
            index.reconstruct(0)  # raises if it cannot; reconstruct_n would abort the process from another thread
        vectors = index.reconstruct_n(0, len(ids))
    except RuntimeError as error:
        remedy = "add the vectors in the order of the passages to an index that keeps them"
        raise InputError(f"{file}: does not give its vectors back ({summarize_error(error)}); {remedy}") from None
    vectors = vectors if index is outer else vectors[np.argsort(ids)]
    if vectors.shape[1] - 1 != width:  # with DPR's additional column, distances rank as inner products
        warn_of_distances(file, outer, vectors)
    return np.ascontiguousarray(vectors[:, :width]) if vectors.shape[1] - 1 == width else vectors


def warn_of_distances(file: Path, index: Any, vectors: Float[np.ndarray, "N D"]) -> None:
    """Warn if FAISS ranks differently from inner product: by L2 distance, with vectors of different norms.

    This is the default of `add_faiss_index` of `datasets`.
    """
    if index.metric_type != import_package("faiss").METRIC_L2 or not len(vectors):
        return
    blocks = (vectors[start : start + AT_ONCE] for start in range(0, len(vectors), AT_ONCE))
    lengths = np.concatenate([np.linalg.norm(block, axis=1) for block in blocks])
    low, high = lengths.min(), lengths.max()
    if high - low > NORM_TOLERANCE * high:
        what = f"ranks by L2 distance, and its vectors have lengths from {low:.4g} to {high:.4g}"
        warn(f"{file}: {what}; here they are ranked by inner product, as RAG is defined, which is another order")


NORM_TOLERANCE = 1e-3  # relative, within which norms count as equal
