"""Rows that lie in several pieces, seen as one: arrays in memory maps, and the passages' texts in Arrow."""

import importlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int

from rag_jax.corpus.passage import Passage

compute: Any = importlib.import_module("pyarrow.compute")  # its functions are made when it is imported
SCHEMA = pa.schema([(name, pa.string()) for name in Passage._fields])
AT_ONCE = 4_096  # passages turned into Python objects together


class SegmentedArray:
    """An array `[N, width]` in pieces; narrower ones are padded on their right with `fill` where they are read."""

    def __init__(self, pieces: Sequence[np.ndarray], fill: int = 0) -> None:
        self.segments, self.fill = tuple(pieces), fill
        self.starts = np.cumsum([0, *map(len, self.segments)])

    @property
    def shape(self) -> tuple[int, ...]:
        """`[N, width]`, or `[N]`."""
        return int(self.starts[-1]), *np.max([piece.shape[1:] for piece in self.segments], axis=0).tolist()

    @property
    def dtype(self) -> np.dtype:
        return np.result_type(*{piece.dtype for piece in self.segments})

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, rows: Int[np.ndarray, "*rows"]) -> np.ndarray:
        """Chosen rows, in any order."""
        rows = np.asarray(rows)
        found = np.full((*rows.shape, *self.shape[1:]), self.fill, self.dtype)
        homes = np.searchsorted(self.starts, rows, side="right") - 1
        for home in np.unique(homes):
            here, piece = homes == home, self.segments[home]
            taken = piece[rows[here] - self.starts[home]]
            found[(here, *map(slice, piece.shape[1:]))] = taken
        return found

    def between(self, start: int, stop: int) -> np.ndarray:
        """The rows from `start` up to `stop`: a view where one piece holds them, a copy otherwise."""
        if start >= stop:
            return np.zeros((0, *self.shape[1:]), self.dtype)
        first, last = np.searchsorted(self.starts, (start, stop - 1), side="right") - 1
        if first == last and self.segments[first].shape[1:] == self.shape[1:]:
            return self.segments[first][start - self.starts[first] : stop - self.starts[first]]
        found = np.full((stop - start, *self.shape[1:]), self.fill, self.dtype)
        for home in range(first, last + 1):
            low, high = max(start, self.starts[home]), min(stop, self.starts[home + 1])
            piece = self.segments[home][low - self.starts[home] : high - self.starts[home]]
            found[(slice(low - start, high - start), *map(slice, piece.shape[1:]))] = piece
        return found

    def blocks(self, size: int, start: int = 0) -> Iterator[np.ndarray]:
        """The rows from `start` on, `size` at a time."""
        for first in range(start, len(self), size):
            yield self.between(first, min(first + size, len(self)))

    @property
    def whole(self) -> np.ndarray:
        """All rows as one array: a view of a single piece, a copy of several."""
        return self.between(0, len(self))


class PassageTable(Sequence[Passage]):
    """Passages by row, read from Arrow tables when they are asked for."""

    def __init__(self, tables: Sequence[pa.Table]) -> None:
        self.table = pa.concat_tables(tables)

    def __len__(self) -> int:
        return self.table.num_rows

    @overload
    def __getitem__(self, row: int) -> Passage: ...
    @overload
    def __getitem__(self, row: slice) -> list[Passage]: ...
    def __getitem__(self, row):
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return Passage(*(column[int(row)].as_py() for column in self.table.columns))

    def __iter__(self) -> Iterator[Passage]:
        for batch in self.table.to_batches(AT_ONCE):
            yield from map(Passage, *(column.to_pylist() for column in batch.columns))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def ids(self) -> pa.ChunkedArray:
        return self.table.column("id")

    def find(self, ids: Sequence[str], alive: Bool[np.ndarray, " N"] | None = None) -> Int[np.ndarray, " ids"]:
        """The rows of some ids, -1 for those that no living row has."""
        rows = None if alive is None else np.flatnonzero(alive)
        held = self.ids if rows is None else self.ids.take(pa.array(rows))
        where = compute.index_in(pa.array(ids, pa.string()), value_set=held.combine_chunks())
        found = where.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return found if rows is None else np.where(found < 0, -1, rows[np.maximum(found, 0)] if len(rows) else -1)


def as_table(passages: Sequence[Passage]) -> pa.Table:
    """Passages as an Arrow table."""
    columns = zip(*passages, strict=True) if passages else ((),) * len(SCHEMA)
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=SCHEMA)
