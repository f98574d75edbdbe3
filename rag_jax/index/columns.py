"""Views of segmented columns as one: memory-mapped arrays, and the passages' texts in Arrow tables."""

import importlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int

from rag_jax.corpus.passage import Passage
from rag_jax.index.part_files import StoredTable

compute: Any = importlib.import_module("pyarrow.compute")  # its functions are made when it is imported
SCHEMA = pa.schema([(name, pa.string()) for name in Passage._fields])
AT_ONCE = 4_096  # passages converted to Python objects at once


class SegmentedArray:
    """An array `[N, width]` in segments; narrower ones are padded on the right with `fill` when read."""

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
        """Some rows, in any order."""
        rows = np.asarray(rows)
        result = np.full((*rows.shape, *self.shape[1:]), self.fill, self.dtype)
        numbers = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(numbers):
            mask, segment = numbers == number, self.segments[number]
            result[(mask, *map(slice, segment.shape[1:]))] = segment[rows[mask] - self.starts[number]]
        return result

    def between(self, start: int, stop: int) -> np.ndarray:
        """The rows from `start` up to `stop`: a view if one segment holds them, otherwise a copy."""
        if start >= stop:
            return np.zeros((0, *self.shape[1:]), self.dtype)
        first, last = np.searchsorted(self.starts, (start, stop - 1), side="right") - 1
        if first == last and self.segments[first].shape[1:] == self.shape[1:]:
            return self.segments[first][start - self.starts[first] : stop - self.starts[first]]
        result = np.full((stop - start, *self.shape[1:]), self.fill, self.dtype)
        for number in range(first, last + 1):
            low, high = max(start, self.starts[number]), min(stop, self.starts[number + 1])
            part = self.segments[number][low - self.starts[number] : high - self.starts[number]]
            result[(slice(low - start, high - start), *map(slice, part.shape[1:]))] = part
        return result

    def blocks(self, size: int, start: int = 0) -> Iterator[np.ndarray]:
        """Yield the rows from `start` on, `size` at a time."""
        for first in range(start, len(self), size):
            yield self.between(first, min(first + size, len(self)))

    @property
    def whole(self) -> np.ndarray:
        """All rows as one array: a view of a single segment, a copy of several."""
        return self.between(0, len(self))


class PassageTable(Sequence[Passage]):
    """Passages by row, read lazily from Arrow tables. Reading raises `InputError` for a damaged table of a store."""

    def __init__(self, segments: Sequence[pa.Table | StoredTable]) -> None:
        self.segments = tuple(segments)
        self.starts = np.cumsum([0, *(each.num_rows for each in self.segments)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @cached_property
    def table(self) -> pa.Table:
        """All of them as one table."""
        return pa.concat_tables(map(_read, self.segments))

    @overload
    def __getitem__(self, row: int) -> Passage: ...
    @overload
    def __getitem__(self, row: slice) -> list[Passage]: ...
    def __getitem__(self, row):
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row = int(row) % len(self)
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        columns = _read(self.segments[number]).columns
        return Passage(*(column[row - int(self.starts[number])].as_py() for column in columns))

    def __iter__(self) -> Iterator[Passage]:
        for segment in self.segments:
            for batch in _read(segment).to_batches(AT_ONCE):
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
        """The rows of some ids; -1 for ids without an alive row."""
        rows = None if alive is None else np.flatnonzero(alive)
        searched = self.ids if rows is None else self.ids.take(pa.array(rows))
        indices = compute.index_in(pa.array(ids, pa.string()), value_set=searched.combine_chunks())
        indices = indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return indices if rows is None else np.where(indices < 0, -1, rows[np.maximum(indices, 0)] if len(rows) else -1)


def as_table(passages: Sequence[Passage]) -> pa.Table:
    """Passages as an Arrow table."""
    columns = zip(*passages, strict=True) if passages else ((),) * len(SCHEMA)
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=SCHEMA)


def _read(segment: pa.Table | StoredTable) -> pa.Table:
    return segment.table if isinstance(segment, StoredTable) else segment
