"""Pooling against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rag_jax.models.pooling import last_pool, mean_pool, normalise, pool, to_vector

LENGTHS = [3, 1, 5, 0]


@pytest.fixture
def states() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(len(LENGTHS), 5, 4)), jnp.float32)


MASK = jnp.arange(5)[None, :] < jnp.asarray(LENGTHS)[:, None]


@pytest.mark.parametrize(
    ("pooling", "naive"),
    [("cls", lambda row: row[0]), ("mean", lambda row: sum(row) / len(row)), ("last", lambda row: row[-1])],
)
def test_a_text_is_pooled_over_its_own_tokens(states, pooling, naive):
    expected = [naive(np.asarray(row[:length])) for row, length in zip(states, LENGTHS, strict=True) if length]
    np.testing.assert_allclose(pool(states, MASK, pooling)[:3], np.stack(expected), rtol=1e-6)


@pytest.mark.parametrize("pooled", [mean_pool, last_pool])
def test_no_tokens_are_pooled_to_zero(states, pooled):
    assert not jnp.any(pooled(states, MASK)[3])


@pytest.mark.parametrize("norm", [None, 1.0, 3.5])
@pytest.mark.parametrize("width", [None, 1, 3, 4])
def test_a_vector_is_truncated_before_it_is_rescaled(states, width, norm):
    found = to_vector(states[:, 0].astype(jnp.bfloat16), width, norm)
    assert found.dtype == jnp.float32
    expected = np.asarray(states[:, 0].astype(jnp.bfloat16), np.float32)[:, : width or 4]
    if norm is not None:
        expected = norm * expected / np.sqrt((expected**2).sum(axis=1))[:, None]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.extended
def test_a_vector_of_length_zero_stays_and_has_a_finite_gradient():
    nothing = jnp.zeros((1, 4))
    assert not jnp.any(normalise(nothing))
    assert jnp.all(jnp.isfinite(jax.jacrev(normalise)(nothing)))
