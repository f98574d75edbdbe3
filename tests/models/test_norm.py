"""LayerNorm beside flax's: the same parameters, values and gradients, and float32 within."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rag_jax.models.norm import LayerNorm

STATES = np.random.default_rng(0).normal(3.0, 2.0, (4, 5, 48)).astype(np.float32)


def params() -> dict:
    draw = np.random.default_rng(1)
    return {"params": {name: draw.normal(size=48).astype(np.float32) for name in ("scale", "bias")}}


def test_values_and_gradients_are_flaxs() -> None:
    def told(module: nn.Module):
        def total(params, states):
            return jnp.sum(jnp.sin(module.apply(params, states)))

        with jax.numpy_rank_promotion("allow"):
            return jax.jit(jax.value_and_grad(total, (0, 1)))(params(), STATES)

    jax.tree.map(
        lambda mine, theirs: np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=2e-5),
        told(LayerNorm(1e-5)),
        told(nn.LayerNorm(1e-5)),
    )


def test_the_mean_is_taken_in_float32() -> None:
    """A bfloat16 mean of large numbers would lose what tells them apart."""
    narrow = jnp.asarray(STATES + 300.0, jnp.bfloat16)
    wide = jax.jit(LayerNorm(1e-5).apply)(params(), narrow.astype(jnp.float32))
    found = jax.jit(LayerNorm(1e-5, jnp.bfloat16).apply)(params(), narrow)
    assert found.dtype == jnp.bfloat16
    assert jnp.array_equal(found, wide.astype(jnp.bfloat16))


def test_the_backward_pass_keeps_the_states_as_they_came() -> None:
    norm, states = LayerNorm(1e-5, jnp.bfloat16), jnp.ones((3, 8, 16), jnp.bfloat16)
    params = norm.init(jax.random.key(0), states)
    kept = jax.tree.leaves(jax.vjp(norm.apply, params, states)[1])
    assert {each.dtype for each in kept if each.shape == states.shape} == {jnp.dtype(jnp.bfloat16)}
