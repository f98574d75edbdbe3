"""The first stage of the search as one GPU kernel: it reads the vectors once and writes only the groups' maxima.

XLA would either copy a block of the index before multiplying it, or write the scores of the whole index. Each program
of the grid multiplies the queries by one group of vectors and writes the group's largest score. Its bfloat16 products
need an NVIDIA device of compute capability 8.0 (A100) or higher.
"""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rag_jax.core.devices import has_bfloat16_products
from rag_jax.core.vectors import count, halves
from rag_jax.types import Int8Vectors, Vectors

GROUP_SIZE = 128  # vectors that share one maximum
MIN_QUERIES = 16  # rows of a matrix unit's product
MAX_QUERIES = 64  # whose accumulators fit in registers
CHUNK = 64  # dimensions multiplied at a time


def supports(queries: Float[Array, "B D"], vectors: Vectors) -> bool:
    """Whether the kernel can search these vectors: 16 or 8 bits wide, with a dimension that its tiles divide."""
    narrow = isinstance(vectors, Int8Vectors) or vectors.dtype == jnp.bfloat16
    # Triton's offsets have 32 bits, signed.
    overflows = isinstance(vectors, Int8Vectors) and 2**31 < vectors.values.size <= 2**32
    divisible = queries.shape[1] % CHUNK == 0 and min(queries.shape[0], count(vectors)) > 0
    return narrow and not overflows and divisible and has_bfloat16_products() and _has_compiler()


@cache
def _has_compiler() -> bool:
    """Whether this version of JAX has Pallas' Triton backend, which is deprecated."""
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
    """The largest `q . d` of each group of `GROUP_SIZE` vectors, -inf where none is `alive`.

    Products have the precision of `rag_jax.core.vectors.halved`.
    """
    from jax.experimental import pallas as pl  # imported here: it is a compiler of its own
    from jax.experimental.pallas import triton

    batch, width = queries.shape
    rows = max(MIN_QUERIES, 1 << (batch - 1).bit_length())
    padded = jnp.pad(jax.lax.stop_gradient(queries.astype(jnp.float32)), ((0, rows - batch), (0, 0)))
    values, *optional = vectors if isinstance(vectors, Int8Vectors) else (vectors,)
    optional += [] if alive is None else [alive]
    groups = -(-count(vectors) // GROUP_SIZE)
    whole = pl.BlockSpec((rows, width), lambda group: (0, 0))
    kernel = pl.pallas_call(
        partial(_kernel, size=count(vectors), scaled=isinstance(vectors, Int8Vectors), masked=alive is not None),
        out_shape=jax.ShapeDtypeStruct((groups, rows), jnp.float32),
        grid=(groups,),
        in_specs=[
            whole,
            whole,
            pl.BlockSpec((GROUP_SIZE, width), lambda group: (group, 0)),
            *(pl.BlockSpec((GROUP_SIZE,), lambda group: (group,)) for _ in optional),
        ],
        out_specs=pl.BlockSpec((1, rows), lambda group: (group, 0)),
        compiler_params=triton.CompilerParams(num_warps=4 if rows == MIN_QUERIES else 8, num_stages=4),
        interpret=interpret,
    )
    return kernel(*halves(padded), values, *optional).T[:batch]


def _kernel(high: Any, low: Any, values: Any, *refs: Any, size: int, scaled: bool, masked: bool) -> None:
    """One group: `[rows, GROUP_SIZE]` scores in float32, then their maximum over the group."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    *optional, maxima = refs
    group = pl.program_id(0)
    valid = group * GROUP_SIZE + jnp.arange(GROUP_SIZE) < size  # the last group may extend past the end
    rows, width = high.shape

    def multiply(chunk: Any, total: Any) -> Any:
        part = pl.ds(chunk * CHUNK, CHUNK)
        narrow = triton.load(values.at[:, part], mask=valid[:, None], other=0).astype(jnp.bfloat16)
        total += triton.dot(high[:, part], narrow, trans_b=True)
        return total + triton.dot(low[:, part], narrow, trans_b=True)

    scores = jax.lax.fori_loop(0, width // CHUNK, multiply, jnp.zeros((rows, GROUP_SIZE), jnp.float32))
    if scaled:
        scores *= triton.load(optional[0], mask=valid, other=0.0)[None, :]
    if masked:
        valid &= triton.load(optional[-1], mask=valid, other=False)
    maxima[0, :] = jnp.max(jnp.where(valid[None, :], scores, -jnp.inf), axis=1)
