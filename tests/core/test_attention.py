"""The attention mass against loops, with a generator that attends as its tokens say."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hypotheses
from rag_jax.core import attention, likelihood, reading
from rag_jax.types import Generator, Tokens

B, K, S, T, V = 2, 3, 4, 5, 9
seeds = st.integers(0, 2**32 - 1)


class Fused(NamedTuple):
    scores: jax.Array  # [R, S, V]: of each position, for each decoder token
    mask: jax.Array


def encode(params, inputs, key=None) -> Fused:
    return Fused(params[inputs.ids], inputs.mask)


def fuse(encoded: Fused, exists) -> Fused:
    mask = encoded.mask.reshape(*exists.shape, S) & exists[:, :, None]
    return Fused(encoded.scores.reshape(B, -1, V), mask.reshape(B, -1))


def cross_attention(params, decoder_inputs, encoded: Fused):
    scores = jax.vmap(lambda scores, ids: scores[:, ids].T)(encoded.scores, decoder_inputs)
    return jax.nn.softmax(jnp.where(encoded.mask[:, None], scores, jnp.finfo(scores.dtype).min), axis=2)


GENERATOR = Generator(encode, lambda *_: None, lambda *_: None, lambda *_: None, fuse, cross_attention)
_mass = jax.jit(partial(attention.attention_mass, GENERATOR))


class Problem(NamedTuple):
    """The arguments of `attention_mass`; what padding and missing passages hold is noise."""

    params: np.ndarray
    inputs: Tokens
    decoder_inputs: np.ndarray
    mask: np.ndarray
    doc_log_prior: np.ndarray


def problem(seed: int, all_exist: bool = False) -> Problem:
    draw = np.random.default_rng(seed)
    inputs = Tokens(draw.integers(0, V, (B, K, S), np.int32), draw.integers(1, S + 1, (B, K), np.int32))
    lengths, found = draw.integers(1, T + 1, B), draw.integers(K if all_exist else 1, K + 1, B)
    prior = np.where(np.arange(K) < found[:, None], draw.normal(size=(B, K)), -np.inf).astype(np.float32)
    scores, ids = draw.normal(size=(V, V)).astype(np.float32), draw.integers(0, V, (B, T), np.int32)
    return Problem(scores, inputs, ids, np.arange(T) < lengths[:, None], prior)


def naive_mass(given: Problem) -> np.ndarray:
    mass = np.zeros((B, K))
    for b in range(B):
        tokens = given.decoder_inputs[b][given.mask[b]]
        read = [
            (k, given.inputs.ids[b, k, s])
            for k in range(K)
            if np.isfinite(given.doc_log_prior[b, k])
            for s in range(given.inputs.lengths[b, k])
        ]
        for token in tokens:
            weights = np.exp([float(given.params[position, token]) for _, position in read])
            for (k, _), weight in zip(read, weights / weights.sum(), strict=True):
                mass[b, k] += weight / len(tokens)
    return mass


@hypotheses.costly
@given(seed=seeds)
def test_mass_is_the_mean_over_tokens_of_the_weights_on_each_passage(seed):
    given = problem(seed)
    mass = np.asarray(_mass(*given))
    np.testing.assert_allclose(mass, naive_mass(given), rtol=1e-5)
    np.testing.assert_allclose(mass.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(mass == 0, np.isneginf(given.doc_log_prior))


@hypotheses.costly
@given(seed=seeds)
def test_it_goes_with_the_passages_and_not_with_their_prior(seed):
    given, order = problem(seed, all_exist=True), np.random.default_rng(seed).permutation(K)
    inputs = Tokens(given.inputs.ids[:, order], given.inputs.lengths[:, order])
    np.testing.assert_allclose(_mass(*given._replace(inputs=inputs)), _mass(*given)[:, order], rtol=1e-5)
    flat = given._replace(doc_log_prior=np.full((B, K), -7, np.float32))
    np.testing.assert_array_equal(_mass(*flat), _mass(*given))


@pytest.mark.parametrize("start", [(1,), (2, 0)])
def test_mass_of_decoded_answers_is_that_of_each(start):
    given, count = problem(8), 3
    draw = np.random.default_rng(8)
    answers, lengths = draw.integers(0, V, (B, count, T), np.int32), draw.integers(1, T + 1, (B, count))
    mask = np.arange(T) < lengths[:, :, None]

    @jax.jit
    def of_answers(params, inputs, answers, mask, log_prior):
        fused = fuse(encode(params, reading.rows(inputs)), ~jnp.isneginf(log_prior))
        return attention.of_answers(GENERATOR, params, fused, answers, mask, log_prior, start)

    found = of_answers(given.params, given.inputs, answers, mask, given.doc_log_prior)
    for c in range(count):
        read = np.concatenate([np.tile(start, (B, 1)), answers[:, c, :-1]], axis=1)[:, len(start) - 1 :]
        expected = naive_mass(given._replace(decoder_inputs=read, mask=mask[:, c]))
        np.testing.assert_allclose(found[:, c], expected, rtol=1e-5)


def test_without_passages_or_tokens_there_is_none():
    given = problem(0, all_exist=True)
    no_passage = np.where(np.arange(B)[:, None] == 0, np.float32(-np.inf), given.doc_log_prior)
    np.testing.assert_array_equal(_mass(*given._replace(doc_log_prior=no_passage))[0], np.zeros(K))
    no_token = given.mask & (np.arange(B)[:, None] != 1)
    np.testing.assert_array_equal(_mass(*given._replace(mask=no_token))[1], np.zeros(K))


def test_as_a_target_it_teaches_the_retriever_alone():
    """KL(sg a || p(z|x)) by its definition: its gradient is that of the prior's logits, `p - a`."""
    given = problem(3, all_exist=True)
    scores = jnp.asarray(np.random.default_rng(4).normal(size=(B, K)), jnp.float32)

    def divergence(params, scores):
        target = jax.lax.stop_gradient(_mass(params, *given[1:]))
        return jnp.sum(target * (jnp.log(target) - likelihood.doc_log_prior(scores)))

    by_params, by_scores = jax.jit(jax.grad(divergence, argnums=(0, 1)))(jnp.asarray(given.params), scores)
    assert not np.any(by_params)
    np.testing.assert_allclose(by_scores, jax.nn.softmax(scores, axis=1) - naive_mass(given), atol=1e-6)


def test_it_is_differentiable_where_nothing_stops_the_gradient():
    given = problem(5)
    chosen = jnp.asarray(np.random.default_rng(6).normal(size=(B, K)), jnp.float32)

    @jax.jit
    def weighted(params):
        return jnp.sum(chosen * _mass(params, *given[1:]))

    direction, step = np.random.default_rng(7).normal(size=(V, V)).astype(np.float32), 1e-2
    difference = (weighted(given.params + step * direction) - weighted(given.params - step * direction)) / (2 * step)
    gradient = jax.grad(weighted)(jnp.asarray(given.params))
    assert float(jnp.sum(gradient * direction)) == pytest.approx(float(difference), rel=1e-2)


@pytest.mark.parametrize("missing", ["fuse", "cross_attention"])
def test_a_generator_that_cannot_is_refused(missing):
    generator = GENERATOR._replace(**{missing: None})
    with pytest.raises(ValueError, match=f"this generator has no `{missing}`, which"):
        jax.jit(partial(attention.attention_mass, generator))(*problem(0))
