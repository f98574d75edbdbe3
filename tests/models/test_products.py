"""Products of rounded factors: their values and derivatives, and the form that a CPU's compiler does not widen."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies

from rag_jax.models import products
from rag_jax.models.dense import matrix_product

sizes = strategies.integers(1, 9)
SHAPES = {"narrow to wide": (48, 32, 64), "wide to narrow": (48, 64, 32), "few rows": (4, 32, 256)}


def drawn(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def rounded(values) -> np.ndarray:
    """Rounded to bfloat16, in float64."""
    return np.asarray(jnp.asarray(values, jnp.bfloat16).astype(jnp.float32), np.float64)


@settings(deadline=None)
@given(batch=strategies.lists(sizes, max_size=2), rows=sizes, inner=sizes, columns=sizes, last=strategies.booleans())
def test_values_and_derivatives_are_those_of_rounded_factors(batch, rows, inner, columns, last: bool) -> None:
    left = drawn(0, *batch, rows, inner)
    right = drawn(1, *batch, columns, inner) if last else drawn(1, *batch, inner, columns)
    weight = drawn(2, *batch, rows, columns)
    found, back = jax.vjp(lambda one, other: products.product(one, other, axis=-1 if last else -2), left, right)
    assert found.dtype == jnp.float32
    one, other, g = map(rounded, (left, right, weight))
    by_columns = np.swapaxes(other, -1, -2) if last else other
    np.testing.assert_allclose(found, one @ by_columns, rtol=1e-5, atol=1e-5)
    by_right = np.swapaxes(one, -1, -2) @ g
    expected = g @ np.swapaxes(by_columns, -1, -2), np.swapaxes(by_right, -1, -2) if last else by_right
    for derivative, naive in zip(back(weight), expected, strict=True):
        assert derivative.dtype == jnp.float32
        np.testing.assert_allclose(derivative, naive, rtol=1e-5, atol=1e-5)


def test_factors_are_rounded_where_jax_is_set_to_it() -> None:
    left, right = drawn(0, 20, 8), drawn(1, 8, 5)
    exact = np.asarray(left, np.float64) @ np.asarray(right, np.float64)
    dimensions = (((1,), (0,)), ((), ()))
    for function in (products.multiply, lambda *factors: matrix_product(*factors, dimensions)):
        np.testing.assert_allclose(function(left, right), exact, rtol=1e-4, atol=1e-5)
        with jax.default_matmul_precision(products.BFLOAT16):
            near = np.asarray(function(left, right))
        np.testing.assert_allclose(near, rounded(left) @ rounded(right), rtol=1e-5, atol=1e-5)
        assert np.abs(near - exact).max() > 1e-4


def test_few_queries_are_multiplied_as_they_are() -> None:
    left, right = drawn(0, 2, products.MIN_ROWS - 1, 8), drawn(1, 2, 8, 5)
    with jax.default_matmul_precision(products.BFLOAT16):
        found = products.multiply(left, right)
    assert not np.allclose(found, rounded(left) @ rounded(right), rtol=1e-5, atol=1e-5)


def multiplies_bfloat16() -> bool:
    """Whether this XLA multiplies bfloat16 matrices on a CPU without widening them."""
    factors = [jax.ShapeDtypeStruct((32, 32), jnp.bfloat16)] * 2
    program = jax.jit(lambda *factors: jnp.matmul(*factors, preferred_element_type=jnp.float32))
    return not widened(program.lower(*factors).compile().as_text())


def widened(program: str) -> list[str]:
    """The products of a compiled program whose factors are float32."""
    types = dict(re.findall(r"(%[\w.-]+) = (\w+)\[", program)) | dict(re.findall(r"(%?[\w.-]+): (\w+)\[", program))
    found = re.findall(r" dot\((%[\w.-]+), (%[\w.-]+)\)", program)
    return [name for pair in found for name in pair if types[name] == "f32"]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="what a CPU's compiler does")
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("axis", [-2, -1])
def test_the_compiler_widens_neither_a_product_nor_its_derivative(shape: tuple[int, int, int], axis: int) -> None:
    if not multiplies_bfloat16():
        pytest.skip("this XLA widens every product")
    rows, inner, columns = shape

    def total(left, right, weight):
        hidden = jnp.tanh(products.product(left, right, axis=axis))
        return jnp.sum(jnp.square(hidden * weight))

    given = (rows, inner), (inner, columns) if axis == -2 else (columns, inner), (rows, columns)
    shapes = [jax.ShapeDtypeStruct(each, jnp.float32) for each in given]
    program = jax.jit(jax.value_and_grad(total, argnums=(0, 1))).lower(*shapes).compile().as_text()
    assert program.count(" dot(") == 3
    assert widened(program) == []
