"""GELU beside torch's formula, its slope, and its dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rag_jax.models.gelu import gelu

POINTS = np.linspace(-12, 12, 4_803, dtype=np.float32).reshape(3, -1)


def test_values_and_slopes_are_torchs() -> None:
    torch = pytest.importorskip("torch", reason="the oracle")
    theirs = torch.tensor(POINTS, requires_grad=True)
    told = torch.nn.functional.gelu(theirs)
    told.sum().backward()
    assert theirs.grad is not None
    np.testing.assert_allclose(gelu(jnp.asarray(POINTS)), told.detach().numpy(), atol=2e-6)
    slopes = jax.grad(lambda x: gelu(x).sum())(jnp.asarray(POINTS))
    np.testing.assert_allclose(slopes, theirs.grad.numpy(), atol=2e-6)


def test_both_modes_of_differentiation_agree() -> None:
    points = jnp.asarray(POINTS)
    _, forward = jax.jvp(gelu, (points,), (jnp.ones_like(points),))
    assert jnp.array_equal(forward, jax.grad(lambda x: gelu(x).sum())(points))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_dtype_is_kept_and_rounding_is_the_only_difference(dtype) -> None:
    narrow = jnp.asarray(POINTS, dtype)
    assert gelu(narrow).dtype == dtype
    assert jax.grad(lambda x: gelu(x).astype(jnp.float32).sum())(narrow).dtype == dtype
    assert jnp.array_equal(gelu(narrow), gelu(narrow.astype(jnp.float32)).astype(dtype))


def test_only_the_slope_is_kept_for_the_backward_pass() -> None:
    _, back = jax.vjp(gelu, jnp.asarray(POINTS))
    kept = [each for each in jax.tree.leaves(back) if getattr(each, "size", 0) >= POINTS.size]
    assert len(kept) == 1
