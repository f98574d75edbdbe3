"""A batch in chunks is the whole batch, in the memory of a chunk."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rag_jax.core import grad_cache
from rag_jax.types import Tokens
from suites import first, only

R, L, V, D = 12, 5, 11, 4
DROPPED = 0.3


def tower(params, tokens, key=None):
    """Two layers over the mean embedding, with dropout between them, in the dtype of the parameters."""
    mask = tokens.mask.astype(params["word"].dtype)
    words = jnp.einsum("RL,RLD->RD", mask, params["word"][tokens.ids])
    hidden = jnp.tanh(words @ params["up"])
    if key is not None:
        hidden = hidden * jax.random.bernoulli(key, 1 - DROPPED, hidden.shape).astype(hidden.dtype)
    return hidden @ params["down"]


def params(width: int = 8, dtype: type = np.float32) -> dict:
    draw = np.random.default_rng(0)
    shapes = {"word": (V, D), "up": (D, width), "down": (width, D)}
    return {name: draw.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def tokens(rows: int = R) -> Tokens:
    draw = np.random.default_rng(1)
    ids = draw.integers(0, V, (rows, L)).astype(np.int32)
    return Tokens(jnp.asarray(ids), jnp.asarray(draw.integers(1, L + 1, rows).astype(np.int32)))


def in_batch_loss(vectors):
    """A loss in which all vectors meet."""
    return jnp.sum(jax.nn.logsumexp(vectors @ vectors.T, axis=1))


@partial(jax.jit, static_argnames="chunk")
def in_chunks(params, rows, key=None, *, chunk):
    def loss(params):
        vectors = grad_cache.encode(tower, params, rows, key, chunk)
        return in_batch_loss(vectors), vectors

    return jax.value_and_grad(loss, has_aux=True)(params)


@jax.jit
def at_once(params, rows):
    def loss(params):
        vectors = tower(params, rows)
        return in_batch_loss(vectors), vectors

    return jax.value_and_grad(loss, has_aux=True)(params)


@pytest.mark.parametrize("chunk", only([4], [1, 4, R, None]))
def test_chunks_compute_the_whole_to_the_rounding_of_float64(chunk):
    with jax.enable_x64(True):
        given = params(dtype=np.float64), tokens()
        seen, expected = in_chunks(*given, chunk=chunk), at_once(*given)
        assert seen[0][0].dtype == np.float64
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), seen, expected)


@pytest.mark.parametrize("chunk", first(1, [4, R]))
def test_with_dropout_each_chunk_has_one_mask_of_its_own_in_both_passes(chunk):
    rows, key, num_chunks = tokens(), jax.random.key(3), R // chunk

    def loss(params):
        vectors = [None] * R
        for number in range(num_chunks):
            part = jax.tree.map(lambda each, number=number: each[number::num_chunks], rows)
            encoded = tower(params, part, jax.random.fold_in(key, number))
            for place, vector in zip(range(number, R, num_chunks), encoded, strict=True):
                vectors[place] = vector
        return in_batch_loss(jnp.stack(vectors)), jnp.stack(vectors)

    with jax.enable_x64(True):
        given = params(dtype=np.float64)
        expected = jax.jit(jax.value_and_grad(loss, has_aux=True))(given)
        seen = in_chunks(given, rows, key, chunk=chunk)
        assert seen[0][0].dtype == np.float64
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), seen, expected)
        assert abs(seen[0][0] - in_chunks(given, rows, chunk=chunk)[0][0]) > 0.1


def test_all_at_once_is_one_chunk():
    given = params(), tokens(), jax.random.key(3)
    whole, one = in_chunks(*given, chunk=None), in_chunks(*given, chunk=R)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), whole, one)


@pytest.mark.parametrize("chunk", [0, -4, 5, 24])
def test_a_chunk_that_does_not_divide_the_rows_is_refused(chunk):
    with pytest.raises(ValueError, match=f"{R} rows are not divisible into chunks of {chunk}"):
        grad_cache.encode(tower, params(), tokens(), None, chunk)


def test_activations_are_those_of_one_chunk():
    """The vectors of the whole batch and the gradient are small beside them."""
    width, given = 4096, params(4096)

    def temporary(rows: int, chunk: int | None) -> int:
        shapes = jax.eval_shape(lambda: (given, tokens(rows)))
        return in_chunks.lower(*shapes, chunk=chunk).compile().memory_analysis().temp_size_in_bytes

    small, large, whole = temporary(32, None), temporary(512, 32), temporary(512, None)
    other = 4 * (512 * 512 * 2 + 512 * D * 4 + 4 * width * D)  # products, vectors, gradients being added up
    assert large < 1.5 * small + other
    assert whole > 8 * small
