"""The null document: one more passage, whose score is learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rag_jax.core import likelihood, null_document
from rag_jax.core.retrieval import LOCAL
from rag_jax.types import Knowledge, Tokens

D, N, K = 4, 6, 3
EMPTY = (7,)


@pytest.fixture
def knowledge(key: jax.Array) -> Knowledge:
    tokens = Tokens(jnp.arange(10, 10 + 2 * N).reshape(N, 2), jnp.full(N, 2))
    return Knowledge(jax.random.normal(key, (N, D)), tokens)


def queries(count: int = 5) -> jax.Array:
    return jax.random.normal(jax.random.key(3), (count, D))


def test_the_scores_are_those_of_their_definitions() -> None:
    q, d = np.asarray(queries(), np.float64), np.linspace(-1, 1, D)
    np.testing.assert_allclose(null_document.vector_score(jnp.asarray(d), queries()), q @ d, rtol=1e-5)
    np.testing.assert_array_equal(null_document.bias_score(jnp.float32(0.5), queries()), np.full(5, 0.5))
    hidden, offset, out = np.linspace(-1, 1, 2 * D).reshape(D, 2), np.asarray([0.1, -0.2]), np.asarray([2.0, -1.0])
    params = {"hidden": hidden, "offset": offset, "out": out, "bias": np.asarray(0.3)}
    expected = [sum(out[h] * np.tanh(row @ hidden[:, h] + offset[h]) for h in range(2)) + 0.3 for row in q]
    found = null_document.network_score(jax.tree.map(jnp.asarray, params), queries())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)  # terms of about 1 that nearly cancel


def extended(bias: float) -> jax.Array:
    tower = null_document.tower(lambda params, tokens, key=None: params[: len(tokens.ids)], null_document.bias_score)
    asked = Tokens(jnp.zeros((5, 1), jnp.int32), jnp.ones(5, jnp.int32))
    return tower({"tower": queries(), "null": jnp.float32(bias)}, asked)


def test_it_is_the_last_passage_beside_the_nearest_ones(knowledge: Knowledge) -> None:
    index, asked = null_document.index(LOCAL, EMPTY), extended(0.5)
    found = index.nearest(asked, knowledge, K)
    np.testing.assert_array_equal(found.rows[:, :-1], LOCAL.nearest(queries(), knowledge, K - 1).rows)
    assert (np.asarray(found.rows[:, -1]) == -1).all()
    retrieved, passages = index.gather(asked, knowledge, found.rows)
    np.testing.assert_allclose(retrieved.scores, found.scores, rtol=1e-5)
    assert np.asarray(retrieved.valid).all()
    assert (np.asarray(retrieved.scores[:, -1]) == 0.5).all()
    assert np.asarray(passages.lengths[:, -1]).tolist() == [1] * 5
    assert np.asarray(passages.ids[:, -1]).tolist() == [[7, 0]] * 5
    np.testing.assert_array_equal(passages.ids[:, 0], knowledge.passage_tokens.ids[found.rows[:, 0]])


def test_the_gradient_of_its_score_is_posterior_minus_prior(knowledge: Knowledge) -> None:
    index = null_document.index(LOCAL, EMPTY)
    log_probs = jax.random.normal(jax.random.key(5), (5, K, 2)) - 2
    mask = jnp.ones((5, 2), bool)

    def total(bias: jax.Array) -> jax.Array:
        asked = jnp.concatenate([queries(), jnp.broadcast_to(bias, (5, 1))], axis=1)
        retrieved, _ = index.gather(asked, knowledge, index.nearest(asked, knowledge, K).rows)
        prior = likelihood.doc_log_prior(retrieved.scores, retrieved.valid)
        return jnp.sum(likelihood.rag_sequence(prior, log_probs, mask)), prior

    gradient, prior = jax.grad(total, has_aux=True)(jnp.float32(0.2))
    posterior = likelihood.sequence_doc_posterior(prior, log_probs, mask)
    np.testing.assert_allclose(gradient, jnp.sum(posterior[:, -1] - jnp.exp(prior[:, -1])), rtol=1e-4)
