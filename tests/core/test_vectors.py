"""Vectors in fewer bits: what is lost, and that the search is exact for what is left."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hypotheses
from rag_jax.core import retrieval, vectors

cases = hypotheses.costly
seeds = st.integers(0, 2**32 - 1)
search = jax.jit(retrieval.exact_top_k, static_argnums=2, static_argnames="block")
quantise = jax.jit(vectors.quantize_int8)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@cases
@given(seeds)
def test_eight_bits_are_off_by_half_a_step_of_the_row_at_most(seed):
    given = normal(seed, 7, 5) * 10.0 ** np.arange(-3, 4)[:, None].astype(np.float32)
    stored = quantise(given)
    steps = np.abs(given).max(axis=1) / 127
    np.testing.assert_allclose(stored.scales, steps, rtol=1e-6)
    restored = vectors.take(stored, jnp.arange(7))
    assert np.all(np.abs(restored - given) <= steps[:, None] * 0.50001)


def test_a_row_of_zeros_stays_one():
    stored = quantise(np.zeros((2, 3), np.float32))
    assert not np.any(vectors.take(stored, jnp.arange(2)))


def test_eight_bits_take_half_of_sixteen():
    stored, D = quantise(normal(0, 100, 768)), 768
    assert stored.values.nbytes == 100 * D
    assert stored.values.nbytes + stored.scales.nbytes < 0.51 * 100 * D * 2


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
@cases
@given(seeds)
def test_the_search_is_exact_for_the_vectors_as_they_are_stored(kind, seed):
    queries, given = normal(seed, 3, 16), normal(seed + 1, 500, 16)
    stored = quantise(given) if kind == "int8" else jnp.asarray(given, jnp.bfloat16)
    held = np.asarray(vectors.take(stored, jnp.arange(500)), np.float64)
    expected = queries.astype(np.float64) @ held.T
    scores, ids = search(queries, stored, 4, block=200)
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :4], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(expected, np.asarray(ids), 1), scores, rtol=1e-5, atol=1e-5)


def test_what_an_accelerator_computes_keeps_sixteen_bits_of_the_query():
    """The branch for accelerators, run here: queries as the sum of two bfloat16 numbers."""
    queries, narrow = normal(0, 4, 64), jnp.asarray(normal(1, 50, 64), jnp.bfloat16)
    exact = queries.astype(np.float64) @ np.asarray(narrow, np.float64).T
    found = jax.jit(vectors.halved)(queries, narrow)
    rounded = np.asarray(queries.astype(jnp.bfloat16), np.float64) @ np.asarray(narrow, np.float64).T
    scale = np.linalg.norm(queries, axis=1, keepdims=True) * np.linalg.norm(np.asarray(narrow, np.float64), axis=1)
    assert np.abs((found - exact) / scale).max() < 2.0**-16
    assert np.abs((rounded - exact) / scale).max() > 2.0**-12, "one number alone would not have done"


@cases
@given(seeds)
def test_the_halves_of_a_query_are_its_sixteen_bits(seed):
    queries = normal(seed, 3, 16) * 10.0 ** np.random.default_rng(seed).integers(-9, 10, (3, 16)).astype(np.float32)
    high, low = jax.jit(vectors.halves)(queries)
    assert (high.dtype, low.dtype) == (jnp.bfloat16, jnp.bfloat16)
    np.testing.assert_array_equal(high, queries.astype(jnp.bfloat16))
    exact = queries.astype(np.float64)
    whole = np.asarray(high, np.float64) + np.asarray(low, np.float64)
    assert np.all(np.abs(whole - exact) <= 2.0**-16 * np.abs(exact))


def test_a_query_is_rounded_by_what_no_compiler_removes():
    """A GPU's compiler takes a cast to sixteen bits and back for nothing, and the second half would be zero."""
    query = jax.ShapeDtypeStruct((4, 64), jnp.float32)
    for platform in ("cpu", "cuda"):
        program = jax.export.export(jax.jit(vectors.halves), platforms=[platform])(query).mlir_module()
        assert "stablehlo.reduce_precision %arg0, format = e8m7" in program
        assert "(tensor<4x64xbf16>) -> tensor<4x64xf32>" not in program, "no way back"


def test_the_program_for_an_accelerator_multiplies_in_sixteen_bits():
    shapes = jax.ShapeDtypeStruct((4, 64), jnp.float32), jax.ShapeDtypeStruct((128, 64), jnp.bfloat16)
    exported = jax.export.export(jax.jit(vectors.products), platforms=["cuda"])(*shapes)
    products = [line for line in exported.mlir_module().splitlines() if "stablehlo.dot_general" in line]
    assert products
    assert all("tensor<8x64xbf16>" in line and "xf32>" in line for line in products)
