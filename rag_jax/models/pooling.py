"""From the states of a text's tokens to its vector: pooling, truncation and normalisation.

Truncated vectors serve towers that were trained so that the first components suffice (Matryoshka representation
learning, Kusupati et al. 2022).
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Pooling = Literal["cls", "mean", "last"]
"""The state of the first token, the mean over the tokens, or the state of the last token; never of padding."""


def pool(states: Float[Array, "R Q width"], mask: Bool[Array, "R Q"], pooling: Pooling) -> Float[Array, "R width"]:
    """One state per text, whose padding is on the right."""
    match pooling:
        case "cls":
            return states[:, 0]
        case "mean":
            return mean_pool(states, mask)
        case "last":
            return last_pool(states, mask)


def mean_pool(states: Float[Array, "R Q width"], mask: Bool[Array, "R Q"]) -> Float[Array, "R width"]:
    """The mean of the states over the tokens, without padding, in float32."""
    total = jnp.sum(jnp.where(mask[:, :, None], states.astype(jnp.float32), 0.0), axis=1)
    return total / jnp.maximum(jnp.sum(mask, axis=1), 1).astype(jnp.float32)[:, None]


def last_pool(states: Float[Array, "R Q width"], mask: Bool[Array, "R Q"]) -> Float[Array, "R width"]:
    """The state of the last token before the padding; of no tokens it is zero."""
    is_last = mask & ~jnp.pad(mask[:, 1:], ((0, 0), (0, 1)))
    return jnp.sum(jnp.where(is_last[:, :, None], states, jnp.zeros((), states.dtype)), axis=1)


def to_vector(pooled: Float[Array, "R width"], truncated_width: int | None, norm: float | None) -> Float[Array, "R D"]:
    """The first `truncated_width` components, then rescaled to `norm`, in float32; None: all, and as they are."""
    first = pooled[:, :truncated_width].astype(jnp.float32)  # small differences between scores determine the prior
    return first if norm is None else norm * normalise(first)


def normalise(vectors: Float[Array, "R D"]) -> Float[Array, "R D"]:
    """Vectors of norm one, in float32; the zero vector stays zero."""
    vectors = vectors.astype(jnp.float32)
    squared = jnp.sum(jnp.square(vectors), axis=1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))
