"""Collapse monitors beside naive loops over the same batch."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import hypotheses
from rag_jax.core.collapse import collapse

monitor = jax.jit(collapse)


def batch(seed: int, questions: int = 4, k: int = 3, passages: int = 6):
    """Passages, some missing, a few twice in a question; a prior and a posterior over those that are there."""
    draw = np.random.default_rng(seed)
    ids = np.stack([draw.permutation(passages)[:k] for _ in range(questions)]).astype(np.int32)
    ids[draw.random(ids.shape) < 0.2] = -1
    ids[0] = np.where(ids[0] < 0, passages, ids[0])  # one passage at least is there

    def distribution() -> np.ndarray:
        weights = np.where(ids < 0, 0.0, draw.random(ids.shape) + 0.01)
        return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)

    return ids, distribution(), distribution()


@hypotheses.costly
@given(st.integers(0, 10_000))
def test_the_figures_are_those_of_a_naive_count(seed: int) -> None:
    ids, prior, posterior = batch(seed)
    with np.errstate(divide="ignore"):
        log_prior = np.log(prior).astype(np.float32)
    found = monitor(jnp.asarray(ids), jnp.asarray(log_prior), jnp.asarray(posterior, jnp.float32))
    there = [each for each in ids.reshape(-1).tolist() if each >= 0]
    assert np.isclose(found.distinct, len(set(there)) / len(there))
    often = max(sum(each in row for row in ids.tolist()) for each in set(there))
    assert np.isclose(found.most_frequent, often / len(ids))
    entropies, gains = [], []
    for p, q in zip(prior, posterior, strict=True):
        entropies.append(-sum(a * np.log(a) for a in p if a > 0))
        gains.append(sum(b * np.log(b / a) for a, b in zip(p, q, strict=True) if b > 0))
    np.testing.assert_allclose(found.prior_entropy, np.mean(entropies), atol=1e-5)
    np.testing.assert_allclose(found.kl, np.mean(gains), atol=1e-5)


def test_a_collapsed_batch_is_told_from_a_healthy_one() -> None:
    uniform = jnp.log(jnp.full((4, 2), 0.5))
    same = monitor(jnp.tile(jnp.asarray([[5, 7]]), (4, 1)), uniform, jnp.exp(uniform))
    apart = monitor(jnp.arange(8).reshape(4, 2), uniform, jnp.tile(jnp.asarray([[1.0, 0.0]]), (4, 1)))
    assert (float(same.distinct), float(same.most_frequent), float(same.kl)) == (0.25, 1.0, 0.0)
    assert (float(apart.distinct), float(apart.most_frequent)) == (1.0, 0.25)
    np.testing.assert_allclose(apart.kl, np.log(2), rtol=1e-6)


def test_no_passage_at_all_is_no_nan() -> None:
    nothing = monitor(jnp.full((2, 3), -1), jnp.full((2, 3), -jnp.inf), jnp.zeros((2, 3)))
    assert [float(each) for each in nothing] == [0.0, 0.0, 0.0, 0.0]
