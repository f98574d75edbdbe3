"""Matrix products of the networks, at the precision that JAX is set to, on a CPU too.

`jax.default_matmul_precision("BF16_BF16_F32")` asks for factors rounded to bfloat16 and sums in float32. GPUs and TPUs
have it; XLA's CPU compiler ignores it. A CPU with instructions for it (Intel's AMX) multiplies bfloat16 matrices about
four times as fast as float32 ones, but XLA uses them only for a float32 product of bfloat16 matrices whose left one is
contracted by its last axis, and widens the factors of any other. `product` and its derivative have that form.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

BFLOAT16 = "BF16_BF16_F32"  # JAX's name for bfloat16 factors and float32 sums
MIN_ROWS = 16  # of the left factor; with fewer, as in a decoding step, rounding cached keys costs more than it saves


def rounds_factors(*factors: Array) -> bool:
    """Whether `product` stands in for what the CPU compiler ignores: a float32 product at the precision `BFLOAT16`."""
    narrow = all(each.dtype in (jnp.float32, jnp.bfloat16) for each in factors)
    is_set = jax.config.jax_default_matmul_precision == BFLOAT16  # pyright: ignore[reportAttributeAccessIssue]
    return narrow and is_set and jax.default_backend() == "cpu"


def multiply(
    left: Float[Array, "*batch M N"], right: Float[Array, "*batch N P"], dtype: Any = jnp.float32
) -> Float[Array, "*batch M P"]:
    """`left @ right` in `dtype`, of two activations; on a CPU a left factor of few rows is never rounded."""
    if left.shape[-2] >= MIN_ROWS and rounds_factors(left, right):
        return jnp.asarray(product(left, right), dtype)
    # None: what JAX is set to, which concerns wider factors
    precision = jax.lax.Precision.DEFAULT if left.dtype == jnp.bfloat16 else None
    return _contracted(left, right, -2, precision, dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(
    left: Float[Array, "*batch M N"], right: Float[Array, "*batch rows columns"], axis: int = -2
) -> Float[Array, "*batch M P"]:
    """`left @ right` in float32, with both factors rounded to bfloat16, as in the two products of its derivative.

    `right` is `[*batch, N, P]`, or `[*batch, P, N]` where `axis`, which is contracted, is -1.
    """
    return _rounded(left.astype(jnp.bfloat16), right.astype(jnp.bfloat16), axis)


def _forward(left: Array, right: Array, axis: int) -> tuple[Array, Any]:
    """The product `[*batch, M, P]`, and what its derivative needs: the rounded factors, and the dtypes they had."""
    factors = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
    return _rounded(*factors, axis), (*factors, jnp.zeros((), left.dtype), jnp.zeros((), right.dtype))


def _backward(axis: int, kept: Any, derivative: Float[Array, "*batch M P"]) -> tuple[Array, Array]:
    """With g the derivative of the product, `g right^T` and `left^T g`."""
    left, right, like_left, like_right = kept
    g = derivative.astype(jnp.bfloat16)
    by_left = _rounded(g, right, -1 if axis == -2 else -2)
    by_right = _product_of_columns(left, g) if axis == -2 else _product_of_columns(g, left)
    return by_left.astype(like_left.dtype), by_right.astype(like_right.dtype)


product.defvjp(_forward, _backward)


def _product_of_columns(
    left: Float[Array, "*batch M N"], right: Float[Array, "*batch M P"]
) -> Float[Array, "*batch N P"]:
    """`left^T right`, transposing what is smaller: the left factor, or the right one and the product."""
    rows, columns, others = left.shape[-2], left.shape[-1], right.shape[-1]
    if rows * columns <= rows * others + columns * others:
        return _rounded(_transposed(left), right, -2)
    return _transposed(_rounded(_transposed(right), left, -2))


def _rounded(left: Float[Array, "*batch M N"], right: Float[Array, "*batch rows columns"], axis: int) -> Array:
    """The float32 product `[*batch, M, P]` of bfloat16 factors, as they are, whatever JAX is set to."""
    return _contracted(left, right, axis, jax.lax.Precision.DEFAULT, jnp.float32)


def _contracted(left: Array, right: Array, axis: int, precision: Any, dtype: Any) -> Float[Array, "*batch M P"]:
    """The left factor's last axis contracted with one of the right factor's; axes before the last two are a batch."""
    batch = tuple(range(left.ndim - 2))
    dimensions: Any = ((left.ndim - 1,), (right.ndim + axis,)), (batch, batch)
    return jax.lax.dot_general(left, right, dimensions, precision, preferred_element_type=dtype)


def _transposed(matrix: Float[Array, "*batch M N"]) -> Float[Array, "*batch N M"]:
    """The transpose, by way of pairs of columns: XLA would take a plain one back into the product."""
    *batch, rows, columns = matrix.shape
    together = 2 if columns % 2 == 0 else 1
    pairs = matrix.reshape(*batch, rows, columns // together, together)
    count = len(batch)
    return jnp.transpose(pairs, (*range(count), count + 1, count + 2, count)).reshape(*batch, columns, rows)
