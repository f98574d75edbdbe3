"""The index's vectors on the device: float32, bfloat16, or int8 with one scale per row.

Whatever the storage, inner products are accumulated in float32, and the search is exact for the vectors as stored.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rag_jax.types import Int8Vectors, Vectors

# For float32 products that become scores, forwards and backwards. By default a GPU rounds the factors to ten bits, a
# TPU to eight; of scores near 75 that loses the differences between passages, which determine the prior.
FULL_PRECISION = jax.lax.Precision.HIGHEST


def quantize_int8(vectors: Float[Array, "N D"]) -> Int8Vectors:
    """Quantize each row to integers in [-127, 127] times its largest magnitude / 127: half of bfloat16's memory."""
    vectors = vectors.astype(jnp.float32)
    scales = jnp.max(jnp.abs(vectors), axis=1) / 127
    steps = vectors / jnp.where(scales > 0, scales, 1.0)[:, None]
    return Int8Vectors(jnp.round(steps).astype(jnp.int8), scales)


def count(vectors: Vectors) -> int:
    """N, the number of vectors."""
    return vectors.scales.shape[0] if isinstance(vectors, Int8Vectors) else vectors.shape[0]


def take(vectors: Vectors, rows: Int[Array, "*rows"]) -> Float[Array, "*rows D"]:
    """The vectors of `rows`, in float32 where they are stored in fewer bits."""
    if isinstance(vectors, Int8Vectors):
        return vectors.values[rows].astype(jnp.float32) * vectors.scales[rows][..., None]
    return vectors[rows].astype(jnp.float32) if vectors.dtype == jnp.bfloat16 else vectors[rows]


def block(vectors: Vectors, start: Int[Array, ""], size: int) -> Any:
    """The `size` rows from `start` on, as stored."""
    return jax.tree.map(lambda each: jax.lax.dynamic_slice_in_dim(each, start, size), vectors)


def products(queries: Float[Array, "B D"], vectors: Vectors) -> Float[Array, "B N"]:
    """`q . d` for every query and vector, in float32."""
    if isinstance(vectors, Int8Vectors):
        return _mixed(queries, vectors.values) * vectors.scales[None, :]
    if vectors.dtype == jnp.bfloat16:
        return _mixed(queries, vectors)
    return jnp.einsum("BD,ND->BN", queries, vectors, preferred_element_type=jnp.float32, precision=FULL_PRECISION)


def _mixed(queries: Float[Array, "B D"], narrow: Array) -> Float[Array, "B N"]:
    """32-bit queries times 16- or 8-bit vectors: in float32 on a CPU, in bfloat16 on an accelerator."""
    return jax.lax.platform_dependent(queries.astype(jnp.float32), narrow, cpu=widened, default=halved)


def widened(queries: Float[Array, "B D"], narrow: Array) -> Float[Array, "B N"]:
    """In float32. The barrier keeps the compiler from converting a whole int8 index before the loop of the search.

    For bfloat16 the CPU compiler does so anyway, so there it saves no memory.
    """
    wide = jax.lax.optimization_barrier(narrow).astype(jnp.float32)
    return jnp.einsum("BD,ND->BN", queries, wide, precision=FULL_PRECISION)


def halved(queries: Float[Array, "B D"], narrow: Array) -> Float[Array, "B N"]:
    """In bfloat16, which represents the vectors exactly; the query is split into a sum of two bfloat16 vectors.

    This keeps 16 bits of the query, and the vectors are still read once.
    """
    high, low = halves(queries)
    both = jnp.concatenate([high, low])
    if narrow.dtype != jnp.bfloat16:
        narrow = jax.lax.optimization_barrier(narrow).astype(jnp.bfloat16)
    partial_sums = jnp.einsum("BD,ND->BN", both, narrow, preferred_element_type=jnp.float32)
    return partial_sums[: high.shape[0]] + partial_sums[high.shape[0] :]


def halves(queries: Float[Array, "B D"]) -> tuple[Float[Array, "B D"], Float[Array, "B D"]]:
    """Two bfloat16 vectors whose sum is the query to 16 bits; the first alone is the query to 8.

    `reduce_precision` rounds whatever the compiler's flags: a cast to bfloat16 and back is removed on a GPU
    (`xla_allow_excess_precision`), and nothing would be left for the second vector.
    """
    high = jax.lax.reduce_precision(queries, exponent_bits=8, mantissa_bits=7)
    return high.astype(jnp.bfloat16), (queries - high).astype(jnp.bfloat16)
