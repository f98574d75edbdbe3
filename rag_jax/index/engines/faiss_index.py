"""FAISS on the host, by its factory string, for indexes that do not fit the devices, at some cost in recall."""

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from rag_jax.data import files
from rag_jax.errors import InputError
from rag_jax.index.engines.engine import EngineResults, Queries, num_candidates, select_top_k

# Probed lists, candidates, and the factor of candidates that are refined; FAISS defaults to 1, 16 and 1: low recall.
SEARCH_PARAMETERS = ("nprobe=32", "efSearch=128", "k_factor_rf=4")


@dataclass(frozen=True)
class FaissIndex:
    """A FAISS index with inner product as its metric."""

    index: Any
    alive: Bool[np.ndarray, " N"] | None = None
    recall: dict[str, float] = field(default_factory=dict)  # recall@k as measured
    file: Path | None = None  # that it is memory-mapped from

    @classmethod
    def build(
        cls, blocks: Iterable[Float[np.ndarray, "n D"]], factory: str, training: Float[np.ndarray, "m D"]
    ) -> "FaissIndex":
        """Index all blocks, after training on the `training` vectors if the index type requires it.

        Raises `InputError` for a factory string that FAISS does not know, and for too few training vectors.
        """
        width = training.shape[1]
        index = new_index(factory, width)
        _disable_polysemous_training(index)
        try:
            if not index.is_trained:
                index.train(_floats(training))
        except RuntimeError as error:
            what = f"{factory} cannot be trained on {len(training)} vectors of width {width}"
            raise InputError(f"{what} ({short_reason(error)}); choose a smaller one") from None
        for setting in SEARCH_PARAMETERS:
            with suppress(RuntimeError):  # most types have one of them, or none
                import_faiss().ParameterSpace().set_index_parameters(index, setting)
        return cls(index).extend(blocks)

    @classmethod
    def open(cls, path: Path, width: int, rows: int | None = None) -> "FaissIndex":
        """Open a saved index, memory-mapped if its type allows it.

        Raises `InputError` for a file that is missing, damaged, or has another width or number of rows.
        """
        if not path.is_file():
            raise InputError(f"{path}: missing; {REMEDY}")
        try:
            index = import_faiss().read_index(str(path), import_faiss().IO_FLAG_MMAP_IFC)
            # FAISS does not notice that mapped lists of an IVF are truncated, and reads beyond their end
            mapped = import_faiss().try_extract_index_ivf(index) is None
            index = index if mapped else import_faiss().read_index(str(path))
        except RuntimeError as error:
            raise InputError(f"{path}: cannot be read as an index of FAISS ({short_reason(error)}); {REMEDY}") from None
        if index.d != width:
            raise InputError(f"{path}: has vectors of width {index.d}, the store's have {width}; {REMEDY}")
        if rows is not None and index.ntotal != rows:
            raise InputError(f"{path}: has {index.ntotal} rows, the store {rows}; {REMEDY}")
        return cls(index, file=path if mapped else None)

    def extend(self, blocks: Iterable[Float[np.ndarray, "n D"]]) -> "FaissIndex":
        """Append rows, without training again; copies one block at a time.

        Raises `InputError` for an index type that requires explicit ids.
        """
        grown = self
        for block in blocks:
            if grown.file is not None:  # a mapped index cannot grow: FAISS would abort the process
                grown = replace(grown, index=import_faiss().read_index(str(grown.file)), file=None)
            try:
                grown.index.add(_floats(block))
            except RuntimeError as error:
                raise InputError(
                    f"FAISS adds no rows to this index ({short_reason(error)}); choose another kind"
                ) from None
        return grown

    def tune(self, settings: str) -> None:
        """Change search parameters, which a saved index keeps: `nprobe=8`, `efSearch=64`.

        Raises `InputError` for a parameter that this index type does not have.
        """
        try:
            import_faiss().ParameterSpace().set_index_parameters(self.index, settings)
        except RuntimeError as error:
            what = f"this index of FAISS does not take {settings!r} ({short_reason(error)})"
            raise InputError(f"{what}; IVF takes nprobe=NUMBER, HNSW efSearch=NUMBER") from None

    def save(self, path: Path) -> None:
        """Write the index atomically. Raises `InputError` if it cannot be written."""
        side = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with files.disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                import_faiss().write_index(self.index, str(side))
                files.fsync(side)
                os.replace(side, path)
                files.fsync(path.parent)
            except RuntimeError as error:  # FAISS reports disk errors so
                full = os.strerror(errno.ENOSPC) in str(error)
                raise OSError(errno.ENOSPC if full else errno.EIO, short_reason(error)) from None
            finally:
                side.unlink(missing_ok=True)

    def search(self, queries: Queries, k: int, excluded: Int[np.ndarray, "B E"] | None = None) -> EngineResults:
        """The k best rows for each question, with FAISS's scores of its (possibly compressed) vectors.

        Raises `InputError` for questions without vectors, or of another width.
        """
        vectors = _floats(queries.required_vectors)
        if vectors.shape[1] != self.index.d:
            raise InputError(f"questions of width {vectors.shape[1]}, the index has {self.index.d}; take its own tower")
        scores, rows = self._search(vectors, num_candidates(k, excluded))
        return select_top_k(rows, scores, k, excluded, self.alive, self.recall.get(f"recall@{k}"))

    def _search(self, vectors: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
        """Skip removed rows, or, for index types that do not support this, search for that many more candidates."""
        limit = max(1, self.index.ntotal)
        if self._selector is None:
            return self.index.search(vectors, min(wanted, limit))
        try:
            return self.index.search(vectors, min(wanted, limit), params=_search_parameters(self.index, self._selector))
        except RuntimeError:
            dead = int(np.count_nonzero(~np.asarray(self.alive)))
            return self.index.search(vectors, min(wanted + dead, limit))

    @cached_property
    def _selector(self) -> Any:
        if self.alive is None:
            return None
        return import_faiss().IDSelectorBitmap(np.packbits(self.alive, bitorder="little"))


REMEDY = "build it again with rag-jax index --faiss"


def _search_parameters(index: Any, selector: Any) -> Any:
    """Search parameters that select some rows, otherwise with the index's settings."""
    faiss = import_faiss()
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=_search_parameters(index.index, selector))
    if isinstance(index, faiss.IndexRefine):
        inner = _search_parameters(index.base_index, selector)
        return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=selector, nprobe=index.nprobe)
    return faiss.SearchParameters(sel=selector)


def _disable_polysemous_training(index: Any) -> None:
    """Leaves the codes of a PQ in the order they come. FAISS would find one for searches by Hamming distance, in
    seconds for each subquantizer; the search here is another."""
    faiss = import_faiss()
    index = faiss.downcast_index(index)
    if hasattr(index, "do_polysemous_training"):
        index.do_polysemous_training = False
    for name in ("index", "base_index", "storage"):
        if getattr(index, name, None) is not None:
            _disable_polysemous_training(getattr(index, name))


def _floats(vectors: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
    return np.ascontiguousarray(vectors, np.float32)


def new_index(factory: str, width: int) -> Any:
    """An empty index of FAISS by inner product. Raises `InputError` for a factory string that FAISS does not know."""
    faiss = import_faiss()
    try:
        return faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        what = f"FAISS makes no index {factory!r} for vectors of width {width} ({short_reason(error)})"
        raise InputError(f"{what}; try Flat, HNSW32, SQ8 or IVF1024,PQ64") from None


def import_faiss() -> ModuleType:
    """Import FAISS lazily, so that only its engine requires it."""
    # Its threads synchronise thousands of times during training. On a shared machine, waiting threads must yield their
    # cores: training is a hundred times slower otherwise.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import faiss
    except ImportError:
        raise InputError("this engine needs the package faiss; run: pip install faiss-cpu") from None
    return faiss


def short_reason(error: Exception) -> str:
    """FAISS's error message without the location in its source."""
    return str(error).strip().rpartition(": ")[2].splitlines()[0][:160]
