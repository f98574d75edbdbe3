"""FAISS on the host, by its factory string: for indexes that no device holds, at the price of some recall."""

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

# lists looked through, candidates kept, and how many more are scored again: FAISS's own, 1, 16 and 1, find little
SEARCH_PARAMETERS = ("nprobe=32", "efSearch=128", "k_factor_rf=4")


@dataclass(frozen=True)
class FaissIndex:
    """Rows in an index of FAISS, compared by inner product."""

    index: Any
    alive: Bool[np.ndarray, " N"] | None = None
    recall: dict[str, float] = field(default_factory=dict)  # recall@k as measured
    file: Path | None = None  # that it is mapped from

    @classmethod
    def build(
        cls, blocks: Iterable[Float[np.ndarray, "n D"]], factory: str, training: Float[np.ndarray, "m D"]
    ) -> "FaissIndex":
        """An index of all blocks, trained on some vectors where its kind needs that.

        Raises `InputError` for a factory string that FAISS does not know, and for too few vectors to train on.
        """
        faiss, width = import_faiss(), training.shape[1]
        try:
            index = faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
        except RuntimeError as error:
            what = f"FAISS makes no index {factory!r} for vectors of width {width} ({short_reason(error)})"
            raise InputError(f"{what}; try Flat, HNSW32, SQ8 or IVF1024,PQ64") from None
        _disable_polysemous_training(index)
        try:
            if not index.is_trained:
                index.train(_floats(training))
        except RuntimeError as error:
            what = f"{factory} cannot be trained on {len(training)} vectors of width {width}"
            raise InputError(f"{what} ({short_reason(error)}); choose a smaller one") from None
        for setting in SEARCH_PARAMETERS:
            with suppress(RuntimeError):  # most kinds know one of them, or none
                faiss.ParameterSpace().set_index_parameters(index, setting)
        return cls(index).extend(blocks)

    @classmethod
    def open(cls, path: Path, width: int, rows: int | None = None) -> "FaissIndex":
        """An index that was saved, mapped into memory where its kind allows that.

        Raises `InputError` for a file that is missing, damaged, of another width, or not of so many rows.
        """
        if not path.is_file():
            raise InputError(f"{path}: missing; {REMEDY}")
        try:
            index = import_faiss().read_index(str(path), import_faiss().IO_FLAG_MMAP_IFC)
            # FAISS does not notice that mapped lists of an IVF were cut short, and reads on beyond their end
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
        """The index with more rows behind its own; what it was trained on stays. Nothing but a block is copied.

        Raises `InputError` for a kind that does not number its rows by itself.
        """
        grown = self
        for block in blocks:
            if grown.file is not None:  # what is mapped cannot grow: FAISS would end the process
                grown = replace(grown, index=import_faiss().read_index(str(grown.file)), file=None)
            try:
                grown.index.add(_floats(block))
            except RuntimeError as error:
                raise InputError(
                    f"FAISS adds no rows to this index ({short_reason(error)}); choose another kind"
                ) from None
        return grown

    def tune(self, settings: str) -> None:
        """From now on search with other settings, which a saved index keeps: `nprobe=8`, `efSearch=64`.

        Raises `InputError` for one that this kind does not have.
        """
        try:
            import_faiss().ParameterSpace().set_index_parameters(self.index, settings)
        except RuntimeError as error:
            told = f"this index of FAISS does not take {settings!r} ({short_reason(error)})"
            raise InputError(f"{told}; IVF takes nprobe=NUMBER, HNSW efSearch=NUMBER") from None

    def save(self, path: Path) -> None:
        """Write it to the side, and rename it into place. Raises `InputError` where the disk does not take it."""
        side = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with files.disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                import_faiss().write_index(self.index, str(side))
                files.fsync(side)
                os.replace(side, path)
                files.fsync(path.parent)
            except RuntimeError as error:  # which is how FAISS tells what the disk told it
                full = os.strerror(errno.ENOSPC) in str(error)
                raise OSError(errno.ENOSPC if full else errno.EIO, short_reason(error)) from None
            finally:
                side.unlink(missing_ok=True)

    def search(self, queries: Queries, k: int, excluded: Int[np.ndarray, "B E"] | None = None) -> EngineResults:
        """The k best rows for each question, with FAISS's own scores: of what it kept of the vectors.

        Raises `InputError` for questions without vectors, or of another width.
        """
        if queries.vectors is None:
            raise InputError("a dense search needs the questions' vectors; name the question tower")
        vectors = _floats(queries.vectors)
        if vectors.shape[1] != self.index.d:
            raise InputError(f"questions of width {vectors.shape[1]}, the index has {self.index.d}; take its own tower")
        scores, rows = self._search(vectors, num_candidates(k, excluded))
        return select_top_k(rows, scores, k, excluded, self.alive, self.recall.get(f"recall@{k}"))

    def _search(self, vectors: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows without a passage are passed over, or, by kinds that cannot be told so, found beside as many others."""
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
    """A search among the selected rows, and otherwise as the index is set."""
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


def import_faiss() -> ModuleType:
    """FAISS; here, and not above, so that only who searches with it needs it."""
    # its threads wait for one another thousands of times while it trains; where other programs run, those that wait
    # must leave them the cores: seconds become a hundred times as many otherwise
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import faiss
    except ImportError:
        raise InputError("this engine needs the package faiss; run: pip install faiss-cpu") from None
    return faiss


def short_reason(error: Exception) -> str:
    """What FAISS complains of, without the place in its own source."""
    return str(error).strip().rpartition(": ")[2].splitlines()[0][:160]
