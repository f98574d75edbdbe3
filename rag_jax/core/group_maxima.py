"""The first stage of the search as one GPU kernel: vectors are read once, and of their scores only maxima are written.

XLA would cut a block out of the index, a copy, before it multiplies, or write all scores of an index of Wikipedia's
size. Here each program of the grid multiplies the queries with one group of vectors and keeps the group's best score.
Its products in bfloat16 need an NVIDIA device of compute capability 8.0 (A100) or higher.
"""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rag_jax.core.vectors import count, halves
from rag_jax.types import Int8Vectors, Vectors

ROWS = 128  # vectors in a group
LEAST = 16  # rows of a product on the matrix units
MOST = 64  # queries whose sums stay in registers
CHUNK = 64  # numbers of a vector that are multiplied at a time


def suits(queries: Float[Array, "B D"], vectors: Vectors) -> bool:
    """Whether the kernel takes these: narrow vectors of a width that its tiles divide."""
    narrow = isinstance(vectors, Int8Vectors) or vectors.dtype == jnp.bfloat16
    wraps = (
        isinstance(vectors, Int8Vectors) and 2**31 < vectors.values.size <= 2**32
    )  # Triton's offsets: signed 32 bits
    fits = queries.shape[1] % CHUNK == 0 and min(queries.shape[0], count(vectors)) > 0
    return narrow and not wraps and fits and _has_compiler()


@cache
def _has_compiler() -> bool:
    """Whether this version of JAX has Pallas for Triton, whose end is announced."""
    try:
        from jax.experimental.pallas import triton
    except ImportError:
        return False
    return triton is not None


def group_maxima(
    queries: Float[Array, "B D"],
    vectors: Vectors,
    alive: Bool[Array, " N"] | None = None,
    *,
    interpret: bool = False,
) -> Float[Array, "B groups"]:
    """The best `q . d` of each `ROWS` vectors, -inf where none is `alive`; as `rag_jax.core.vectors.halved`."""
    from jax.experimental import pallas as pl  # a compiler of its own, for those who need it
    from jax.experimental.pallas import triton

    batch, width = queries.shape
    rows = max(LEAST, 1 << (batch - 1).bit_length())
    padded = jnp.pad(jax.lax.stop_gradient(queries.astype(jnp.float32)), ((0, rows - batch), (0, 0)))
    values, *more = vectors if isinstance(vectors, Int8Vectors) else (vectors,)
    more += [] if alive is None else [alive]
    groups = -(-count(vectors) // ROWS)
    whole = pl.BlockSpec((rows, width), lambda group: (0, 0))
    kernel = pl.pallas_call(
        partial(_kernel, size=count(vectors), scaled=isinstance(vectors, Int8Vectors), masked=alive is not None),
        out_shape=jax.ShapeDtypeStruct((groups, rows), jnp.float32),
        grid=(groups,),
        in_specs=[
            whole,
            whole,
            pl.BlockSpec((ROWS, width), lambda group: (group, 0)),
            *(pl.BlockSpec((ROWS,), lambda group: (group,)) for _ in more),
        ],
        out_specs=pl.BlockSpec((1, rows), lambda group: (group, 0)),
        compiler_params=triton.CompilerParams(num_warps=4 if rows == LEAST else 8, num_stages=4),
        interpret=interpret,
    )
    return kernel(*halves(padded), values, *more).T[:batch]


def _kernel(high: Any, low: Any, values: Any, *more: Any, size: int, scaled: bool, masked: bool) -> None:
    """One group: `[rows, ROWS]` sums in float32, then their maximum over the group."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    *given, best = more
    group = pl.program_id(0)
    there = group * ROWS + jnp.arange(ROWS) < size  # the last group may reach beyond the end
    rows, width = high.shape

    def multiply(chunk: Any, total: Any) -> Any:
        part = pl.ds(chunk * CHUNK, CHUNK)
        narrow = triton.load(values.at[:, part], mask=there[:, None], other=0).astype(jnp.bfloat16)
        total += triton.dot(high[:, part], narrow, trans_b=True)
        return total + triton.dot(low[:, part], narrow, trans_b=True)

    found = jax.lax.fori_loop(0, width // CHUNK, multiply, jnp.zeros((rows, ROWS), jnp.float32))
    if scaled:
        found *= triton.load(given[0], mask=there, other=0.0)[None, :]
    if masked:
        there &= triton.load(given[-1], mask=there, other=False)
    best[0, :] = jnp.max(jnp.where(there[None, :], found, -jnp.inf), axis=1)
