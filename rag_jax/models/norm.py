"""Layer normalisation (Ba et al. 2016) and RMSNorm (Zhang & Sennrich 2019), computed in float32."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class LayerNorm(nn.Module):
    """LayerNorm with flax's parameters.

    The backward pass recomputes it, so that the states are stored in their own dtype and not as float32 copies.
    """

    epsilon: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, states: Float[Array, "*rows width"]) -> Float[Array, "*rows width"]:
        width = states.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (width,))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        return jax.checkpoint(partial(_normalise, epsilon=self.epsilon))(states, scale, bias).astype(self.dtype)


class RMSNorm(nn.Module):
    """Division by the root mean square, and a scale: no mean is subtracted, no bias added.

    Recomputed in the backward pass, like LayerNorm.
    """

    epsilon: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, states: Float[Array, "*rows width"]) -> Float[Array, "*rows width"]:
        scale = self.param("scale", nn.initializers.ones, (states.shape[-1],))
        return jax.checkpoint(partial(_divide_by_rms, epsilon=self.epsilon))(states, scale).astype(self.dtype)


def _normalise(
    states: Float[Array, "*rows width"], scale: Float[Array, " width"], bias: Float[Array, " width"], epsilon: float
) -> Float[Array, "*rows width"]:
    wide = states.astype(jnp.float32)
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    inverse_std = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + epsilon)
    shape = (*(1,) * (states.ndim - 1), states.shape[-1])
    return centred * inverse_std * scale.reshape(shape) + bias.reshape(shape)


def _divide_by_rms(
    states: Float[Array, "*rows width"], scale: Float[Array, " width"], epsilon: float
) -> Float[Array, "*rows width"]:
    wide = states.astype(jnp.float32)
    inverse_rms = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + epsilon)
    return wide * inverse_rms * scale.reshape(*(1,) * (states.ndim - 1), states.shape[-1])
