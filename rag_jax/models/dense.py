"""Linear layers whose products are of two matrices, however many axes their inputs have.

The gradient of a kernel contracts all axes of the inputs but the last. Where these are several, XLA transposes both
operands on a CPU, which makes a training step about a quarter slower; joined to one beforehand they cost nothing.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from rag_jax.models.products import product, rounds_factors

PRODUCT = "product with weights"  # its name for rematerialisation


def matrix_product(
    inputs: Float[Array, "*rows features"], matrix: Float[Array, "..."], dimension_numbers: Any, **options: Any
) -> Float[Array, "*rows outputs"]:
    """`jax.lax.dot_general` of the inputs' last axis with an axis of a matrix `[features, outputs]` or the reverse.

    Where `rounds_factors`, it is `product`, which takes no options.
    """
    (_, matrix_axes), batch_axes = dimension_numbers
    flat = inputs.reshape(-1, inputs.shape[-1])
    if rounds_factors(flat, matrix):
        outputs = jnp.asarray(product(flat, matrix, axis=matrix_axes[0] - 2), flat.dtype)
    else:
        outputs = jax.lax.dot_general(flat, matrix, (((1,), matrix_axes), batch_axes), **options)
    return checkpoint_name(outputs.reshape(*inputs.shape[:-1], outputs.shape[-1]), PRODUCT)


Dense = partial(nn.Dense, dot_general=matrix_product)


def attend(words: nn.Embed, states: Float[Array, "*rows width"]) -> Float[Array, "*rows V"]:
    """The logits of a head that is tied to the embeddings."""
    states, embeddings = promote_dtype(states, words.embedding, dtype=words.dtype, inexact=False)
    return matrix_product(states, embeddings, (((states.ndim - 1,), (1,)), ((), ())))
