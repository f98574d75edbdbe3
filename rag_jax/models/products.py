"""Matrix products of the networks, at the precision that JAX is set to, on a CPU too.

`jax.default_matmul_precision("BF16_BF16_F32")` asks for factors rounded to bfloat16 and sums in float32. GPUs and TPUs
have it; XLA's CPU compiler ignores it. A CPU with instructions for it (Intel's AMX) multiplies bfloat16 matrices about
four times as fast as float32 ones, but XLA uses them only for a float32 product of bfloat16 matrices whose left one is
contracted by its last axis, and widens the factors of any other. Every product here has that form.
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


def multiply(left: Float[Array, "*batch M N"], right: Float[Array, "*batch N P"]) -> Float[Array, "*batch M P"]:
    """`left @ right` in float32 at least, of factors that are both computed."""
    if left.shape[-2] >= MIN_ROWS and rounds_factors(left, right):
        return product(left, right)
    return _contracted(left, right, -1, -2)


def product(
    left: Float[Array, "*batch M N"], right: Float[Array, "*batch rows columns"], axis: int = -2
) -> Float[Array, "*batch M P"]:
    """`left @ right` with factors rounded to bfloat16 and sums in float32; so are the products of its derivative.

    `right` is `[*batch, N, P]`, or `[*batch, P, N]` where `axis`, which is contracted, is -1.
    """
    return _product(axis, left.astype(jnp.bfloat16), right.astype(jnp.bfloat16))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(axis: int, left: Array, right: Array) -> Array:
    return _contracted(left, right, -1, axis)


def _forward(axis: int, left: Array, right: Array) -> tuple[Array, tuple[Array, Array]]:
    return _product(axis, left, right), (left, right)


def _backward(axis: int, factors: tuple[Array, Array], derivative: Array) -> tuple[Array, Array]:
    """Of `left right`, with g the derivative of the product, `g right^T` and `left^T g`."""
    left, right = factors
    derivative = derivative.astype(jnp.bfloat16)
    by_left = _contracted(derivative, right, -1, -1 if axis == -2 else -2)
    first, second = (left, derivative) if axis == -2 else (derivative, left)
    return by_left.astype(jnp.bfloat16), _product_of_columns(first, second)


def _product_of_columns(
    left: Float[Array, "*batch M N"], right: Float[Array, "*batch M P"]
) -> Float[Array, "*batch N P"]:
    """`left^T right`, transposing what is smaller: the left factor, or the right one and the product."""
    rows, columns, others = left.shape[-2], left.shape[-1], right.shape[-1]
    if rows * columns <= rows * others + columns * others:
        return _contracted(_transposed(left), right, -1, -2).astype(jnp.bfloat16)
    return _transposed(_contracted(_transposed(right), left, -1, -2).astype(jnp.bfloat16))


_product.defvjp(_forward, _backward)


def _contracted(left: Array, right: Array, of_left: int, of_right: int) -> Array:
    """The product in float32 at least over an axis of each, counted from the end; the first axes are a batch."""
    batch = tuple(range(left.ndim - 2))
    dimensions: Any = ((left.ndim + of_left,), (right.ndim + of_right,)), (batch, batch)
    wide = jnp.float64 if left.dtype == jnp.float64 else jnp.float32
    precision = jax.lax.Precision.DEFAULT if left.dtype == jnp.bfloat16 else None  # None: what JAX is set to
    return jax.lax.dot_general(left, right, dimensions, precision, preferred_element_type=wide)


def _transposed(matrix: Float[Array, "*batch M N"]) -> Float[Array, "*batch N M"]:
    """The transpose, by way of pairs of columns: XLA would take a plain one back into the product."""
    *batch, rows, columns = matrix.shape
    together = 2 if columns % 2 == 0 else 1
    pairs = matrix.reshape(*batch, rows, columns // together, together)
    count = len(batch)
    return jnp.transpose(pairs, (*range(count), count + 1, count + 2, count)).reshape(*batch, columns, rows)
