"""Exact search over all of Wikipedia's passages, resident on the device."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator import device
from benchmarks.accelerator.part import Record, reason, run, spread
from benchmarks.accelerator.scale import Scale
from rag_jax.core import retrieval
from rag_jax.core.vectors import count, quantize_int8, take
from rag_jax.types import Int8Vectors

K = 10
PIECE = 2**18  # rows that are drawn at a time
SHARE = 0.72  # of the device's memory that the index may take


def main(scale: Scale, weights: Path, record: Record) -> None:
    """Milliseconds of a search for each number of queries: in bfloat16 and in int8."""
    del weights
    passages = fitting(scale.passages, 2 * scale.width)
    vectors = drawn(passages, scale.width)
    record(passages=passages, width=scale.width, bytes=2 * passages * scale.width, searches=[])
    record(planted=found_again(vectors))
    searches: list[dict] = []
    for kind in ("bfloat16", "int8"):
        if kind == "int8":
            vectors = jax.jit(quantise_in_pieces, donate_argnums=0)(vectors)
            record(planted_int8=found_again(vectors))
        for queries in scale.queries:
            searches.append({"kind": kind, "queries": queries})
            for told in measured(vectors, queries, scale.rounds):
                searches[-1] |= told
                record(searches=searches)


def fitting(passages: int, row: int) -> int:
    """As many passages of `row` bytes as the device's memory takes."""
    most = device.limit()
    return passages if most is None else min(passages, int(SHARE * most) // row)


def drawn(passages: int, width: int) -> jax.Array:
    """Random vectors in bfloat16, made where they are searched."""
    return filled(jnp.zeros((passages, width), jnp.bfloat16), partial(jax.random.normal, dtype=jnp.bfloat16))


def filled(held: jax.Array, draw: Callable[[jax.Array, tuple[int, int]], jax.Array]) -> jax.Array:
    """An array whose rows are drawn in place."""

    @partial(jax.jit, donate_argnums=0)
    def fill(held: jax.Array, key: jax.Array) -> jax.Array:
        return in_pieces(held, lambda number, _, size: draw(jax.random.fold_in(key, number), (size, held.shape[1])))

    return fill(held, jax.random.key(0))


def quantise_in_pieces(vectors: jax.Array):
    """All of an index in eight bits, without a float32 copy of it."""
    empty = Int8Vectors(jnp.zeros(vectors.shape, jnp.int8), jnp.zeros(len(vectors), jnp.float32))
    return in_pieces(empty, lambda _, *rows: quantize_int8(jax.lax.dynamic_slice_in_dim(vectors, *rows)))


def in_pieces(held: Any, make: Callable[[Any, Any, int], Any]) -> Any:
    """Arrays whose rows are made a piece at a time, in place: there is no room for all at once.

    `make` receives the number of a piece, its first row and how many it has; the last piece may overlap the one before.
    """
    rows = len(jax.tree.leaves(held)[0])
    size = min(PIECE, rows)

    def put(number, held):
        start = jnp.minimum(number * size, rows - size)
        made = make(number, start, size)
        return jax.tree.map(lambda all, new: jax.lax.dynamic_update_slice_in_dim(all, new, start, 0), held, made)

    return jax.lax.fori_loop(0, -(-rows // size), put, held)


def found_again(vectors: Any) -> bool | str:
    """Whether rows all over the index are the nearest to themselves: no offset overflows. Or why that is not known."""
    rows = np.linspace(0, count(vectors) - 1, 8).astype(np.int32)
    queries = take(vectors, jnp.asarray(rows))
    try:
        _, ids = jax.jit(partial(retrieval.exact_top_k, k=K))(queries, vectors)
    except device.FAILURES as error:
        return reason(error)
    return bool((np.asarray(ids)[:, 0] == rows).all())


def measured(vectors: Any, queries: int, rounds: int) -> Iterator[dict[str, Any]]:
    """One search: milliseconds, and the vectors' bytes per second; or why it could not be done. Then its kernels."""
    asked = jax.random.normal(jax.random.key(queries), (queries, vectors_width(vectors)))
    try:
        search = jax.jit(partial(retrieval.exact_top_k, k=K))
        program, took, memory = device.compiled(search, asked, vectors)
        times = device.timed(partial(program, asked, vectors), rounds)
    except device.FAILURES as error:
        yield {"error": reason(error)}
        return
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(vectors))
    yield spread(times) | memory | {"compile": took, "bytes/s": size / spread(times)["median"]}
    yield {"kernels": device.longest_kernels(partial(program, asked, vectors))}


def vectors_width(vectors) -> int:
    """D."""
    return jax.tree.leaves(vectors)[0].shape[1]


if __name__ == "__main__":
    run(main)
