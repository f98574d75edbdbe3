"""Dropout whose masks for packed inputs do not depend on how they are packed."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rag_jax.core.packing import row_indices
from rag_jax.types import PackedInputs


class Dropout(nn.Dropout):
    """flax's `Dropout`, with a key per token, from its row and position, where inputs are packed.

    The number of packs depends on the mesh; dropout masks must not.
    """

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, states: Float[Array, "G N width"], deterministic: bool, packed: PackedInputs | None = None
    ) -> Float[Array, "G N width"]:
        if packed is None or deterministic or not self.rate:
            return super().__call__(states, deterministic)
        key, width = self.make_rng("dropout"), states.shape[2:]

        def token_mask(index: Array) -> Array:
            return jax.random.bernoulli(jax.random.fold_in(key, index), 1 - self.rate, width)

        keep = jax.vmap(jax.vmap(token_mask))(row_indices(packed))
        return jnp.where(keep, states / (1 - self.rate), jnp.zeros((), states.dtype))
