"""Layer normalisation (Ba et al. 2016), in float32 whatever the networks compute in."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class LayerNorm(nn.Module):
    """Each state less its mean, over its deviation, scaled and shifted; the parameters are those of flax's.

    The backward pass computes it again: what it keeps are the states as they came, not their float32 copies.
    """

    epsilon: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, states: Float[Array, "*rows width"]) -> Float[Array, "*rows width"]:
        width = states.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (width,))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        return jax.checkpoint(partial(_normalised, epsilon=self.epsilon))(states, scale, bias).astype(self.dtype)


def _normalised(
    states: Float[Array, "*rows width"], scale: Float[Array, " width"], bias: Float[Array, " width"], epsilon: float
) -> Float[Array, "*rows width"]:
    wide = states.astype(jnp.float32)
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    deviation = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + epsilon)
    along = (*(1,) * (states.ndim - 1), states.shape[-1])
    return centred * deviation * scale.reshape(along) + bias.reshape(along)
