"""DPR's vector shards, which are pickles, read without executing code in them."""

import pickle
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float

from rag_jax.corpus.passage import Passage
from rag_jax.errors import InputError
from rag_jax.index.importers.vectors import summarize_error, to_float32

SHARD = re.compile(r".+_[0-9]+(\.pkl)?")


def shard_vectors(path: Path, passages: Sequence[Passage], shards: Sequence[Path]) -> Float[np.ndarray, "N D"]:
    rows = {passage.id: row for row, passage in enumerate(passages)}
    vectors, seen = np.empty((len(rows), 0), np.float32), np.zeros(len(rows), bool)
    unknown, twice = [], []
    for shard in shards:
        for name, vector in _shard_entries(shard):
            row = rows.get(name, rows.get(name.removeprefix("wiki:")))  # DPR's id_prefix for Wikipedia
            if row is None or seen[row]:
                (unknown if row is None else twice).append(name)
                continue
            if not vectors.shape[1]:
                vectors = np.empty((len(rows), len(vector)), np.float32)
            if len(vector) != vectors.shape[1]:
                what = f'the vector of "{name}" has width {len(vector)}, those before {vectors.shape[1]}'
                raise InputError(f"{shard}: {what}; leave the shards of one encoder only")
            vectors[row], seen[row] = to_float32(vector), True
    missing = [passages[row].id for row in np.flatnonzero(~seen).tolist()]
    wrong = {
        "passages without a vector": missing,
        "vectors of unknown ids": unknown,
        "vectors of ids that had one": twice,
    }
    if any(wrong.values()):
        what = ", ".join(f"{len(ids)} {which} (first {ids[0]!r})" for which, ids in wrong.items() if ids)
        raise InputError(f"{path}: {what}; put all shards of this one corpus there, and no others")
    return vectors


def _shard_entries(shard: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the ids and vectors written by DPR's `generate_dense_embeddings.py`."""
    remedy = "leave only the files that generate_dense_embeddings.py wrote"
    try:
        with shard.open("rb") as file:
            entries = _Shard(file, shard).load()
    except InputError:
        raise
    except Exception as error:  # malformed bytes may raise anything
        raise InputError(f"{shard}: no DPR vector shard ({summarize_error(error)}); {remedy}") from None
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
        match entry:
            case (str() | int() as name, _Array(values=np.ndarray() as vector), *_) if _is_vector(vector):
                yield str(name), vector
            case _:
                what = f"entry {number} is not an id and a vector of floats"
                raise InputError(f"{shard}: no DPR vector shard ({what}); {remedy}")


def _is_vector(array: np.ndarray) -> bool:
    return array.ndim == 1 and array.size > 0 and array.dtype.kind == "f"


class _Array:
    """The replacement of `numpy.ndarray` while a shard is read."""

    values: np.ndarray | None = None

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, _, data = state
        self.values = np.frombuffer(data, dtype.plain).reshape(shape)


class _Dtype:
    """The replacement of `numpy.dtype` while a shard is read."""

    def __init__(self, name: str, *_: object) -> None:
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    @cached_property
    def plain(self) -> np.dtype:
        if not re.fullmatch("[<>=|][fiu][1248]", self.order + self.name):
            raise pickle.UnpicklingError(f"an array of {self.name}")
        return np.dtype(self.order + self.name)


def _frombuffer(data: bytes, dtype: _Dtype, shape: tuple, order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order, data))
    return array


def _scalar(dtype: _Dtype, data: bytes) -> int | float:
    return np.frombuffer(data, dtype.plain)[0].item()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in {encoding}")
    return text.encode("latin1")


STAND_INS = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _encode,
    **{f"numpy.{core}.multiarray._reconstruct": _Array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _frombuffer for core in ("core", "_core")},
}


class _Shard(pickle.Unpickler):
    """Reads pickled numbers, strings, lists and arrays of numbers, like torch's `weights_only`, and nothing else.

    A pickle is a program that may call whatever `find_class` returns: here only the functions above. They replace
    numpy's own, which trust their input: with a forged dtype, numpy's `__setstate__` interprets file bytes as pointers.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file)
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in STAND_INS:
            raise self._refusal(f"it asks for {f'{module}.{name}'[:100]!a}")
        return STAND_INS[f"{module}.{name}"]

    def persistent_load(self, pid: object) -> Any:
        raise self._refusal("it points to another file")

    def _refusal(self, what: str) -> InputError:
        return InputError(f"{self.path}: no DPR vector shard, {what}, which was not run; take it out of the folder")
