"""Multi-head attention against its formula, written out in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import jit, relative

from rag_jax.models.attention import Attention

R, T, S, WIDTH = 3, 4, 6, 24


def naive_attention(params, states, attended, mask, heads: int) -> np.ndarray:
    """Head by head: `softmax(Q K^T / sqrt(d)) V` over the positions where the mask is True."""

    def dense(name, x):
        return x @ np.asarray(params[name]["kernel"], np.float64) + np.asarray(params[name]["bias"], np.float64)

    states, attended = np.asarray(states, np.float64), np.asarray(attended, np.float64)
    queries, keys, values = dense("query", states), dense("key", attended), dense("value", attended)
    d = states.shape[-1] // heads
    mixed = np.zeros_like(states)
    for head in range(heads):
        part = slice(head * d, (head + 1) * d)
        for row in range(len(states)):
            scores = np.exp(queries[row, :, part] @ keys[row, :, part].T / np.sqrt(d)) * np.asarray(mask[row])
            mixed[row, :, part] = scores / scores.sum(axis=1, keepdims=True) @ values[row, :, part]
    return dense("out", mixed)


def make(key, heads: int, dropout: float = 0.0, dtype=jnp.float32):
    """An attention with large random weights: `(apply, params, states, attended)`."""
    module = Attention(WIDTH, heads, dropout, 0.3, dtype)
    states = jax.random.normal(jax.random.fold_in(key, 1), (R, T, WIDTH))
    attended = jax.random.normal(jax.random.fold_in(key, 2), (R, S, WIDTH))

    def whole(module, states, attended, mask, deterministic):
        return module(states, *module.project(attended), mask, deterministic)

    def apply(params, states, attended, mask, dropout_key=None):
        rngs = {} if dropout_key is None else {"dropout": dropout_key}
        return module.apply({"params": params}, states, attended, mask, dropout_key is None, rngs=rngs, method=whole)

    params = module.init(key, states, attended, jnp.ones((R, 1, S), bool), True, method=whole)["params"]
    biases = {name: {**each, "bias": 0.1 * jnp.arange(WIDTH, dtype=jnp.float32)} for name, each in params.items()}
    return jit(apply), biases, states, attended


@pytest.mark.parametrize("heads", [1, 3, 8])
def test_attention_is_its_formula(key, heads):
    apply, params, states, attended = make(key, heads)
    mask = jax.random.bernoulli(key, 0.6, (R, T, S)).at[:, :, 0].set(True)
    expected = naive_attention(params, states, attended, mask, heads)
    assert relative(apply(params, states, attended, mask), expected) < 1e-5


@pytest.mark.parametrize("shape", [(1, T, S), (R, 1, S), (1, 1, S)])
def test_a_mask_holds_for_every_row_and_query_that_it_leaves_out(key, shape):
    apply, params, states, attended = make(key, 3)
    mask = jax.random.bernoulli(key, 0.6, shape).at[:, :, 0].set(True)
    full = apply(params, states, attended, jnp.broadcast_to(mask, (R, T, S)))
    np.testing.assert_array_equal(apply(params, states, attended, mask), full)


def test_what_is_masked_has_no_value_and_no_gradient(key):
    apply, params, states, attended = make(key, 3)
    mask = jnp.ones((R, 1, S), bool).at[:, :, 4:].set(False)
    changed = attended.at[:, 4:].set(100.0)
    np.testing.assert_array_equal(apply(params, states, attended, mask), apply(params, states, changed, mask))
    gradient = jax.grad(lambda attended: jnp.sum(jnp.square(apply(params, states, attended, mask))))(attended)
    assert not jnp.any(gradient[:, 4:])
    assert jnp.all(jnp.any(gradient[:, :4] != 0, axis=2))


def test_a_query_that_may_look_nowhere_is_finite(key):
    apply, params, states, attended = make(key, 3)

    def loss(params):
        return jnp.sum(jnp.square(apply(params, states, attended, jnp.zeros((R, T, S), bool))))

    value, gradient = jax.value_and_grad(loss)(params)
    assert jnp.isfinite(value)
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_bfloat16_scores_are_summed_and_normalised_in_float32(key):
    """Weights over 4096 equal positions sum to 1; in bfloat16 the sum would stall at 256."""
    module = Attention(WIDTH, 1, 0.0, 0.02, jnp.bfloat16)
    keys, values = jnp.zeros((1, 4096, 1, WIDTH), jnp.bfloat16), jnp.ones((1, 4096, 1, WIDTH), jnp.bfloat16)
    states, mask = jnp.ones((1, 1, WIDTH), jnp.bfloat16), jnp.ones((1, 1, 4096), bool)
    params = module.init(key, states, keys, values, mask, True)
    params["params"]["out"] = {"kernel": jnp.eye(WIDTH), "bias": jnp.zeros(WIDTH)}
    mixed = module.apply(params, states, keys, values, mask, True)
    assert mixed.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(mixed, np.float32), 1.0, atol=2**-8)


def test_dropout_thins_the_weights(key):
    apply, params, states, attended = make(key, 3, dropout=0.5)
    mask = jnp.ones((1, 1, S), bool)
    whole = apply(params, states, attended, mask)
    first, second = (apply(params, states, attended, mask, jax.random.key(seed)) for seed in (1, 2))
    np.testing.assert_array_equal(whole, apply(params, states, attended, mask))
    assert jnp.any(first != whole)
    assert jnp.any(first != second)
