"""Dropout of states, drawn for each token by its own number where inputs are packed."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rag_jax.core.packing import row_indices
from rag_jax.types import PackedInputs


class Dropout(nn.Dropout):
    """flax's, that knows packed tokens: each has a key of its row and position.

    How many lines inputs are packed into is a matter of the mesh, and what is dropped must not be.
    """

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, states: Float[Array, "G N width"], deterministic: bool, packed: PackedInputs | None = None
    ) -> Float[Array, "G N width"]:
        if packed is None or deterministic or not self.rate:
            return super().__call__(states, deterministic)
        key, width = self.make_rng("dropout"), states.shape[2:]

        def kept(number: Array) -> Array:
            return jax.random.bernoulli(jax.random.fold_in(key, number), 1 - self.rate, width)

        keep = jax.vmap(jax.vmap(kept))(row_indices(packed))
        return jnp.where(keep, states / (1 - self.rate), jnp.zeros((), states.dtype))
